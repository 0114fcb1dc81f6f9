// The page around the indicator: upload, the table of leads, past imports.

const $ = (id) => document.getElementById(id);
const FIELDS = [
  ['first_name', 'First name'], ['last_name', 'Last name'], ['title', 'Title'], ['company', 'Company'],
  ['email', 'E-mail'], ['phone', 'Phone'], ['remarks', 'Remarks'],
];
const number = new Intl.NumberFormat();

// --- The table keeps its page, order and filter in the address, so that a reload keeps them too.

const params = new URLSearchParams(location.search);
const view = { page: Math.max(1, Number(params.get('page')) || 1), sort: params.get('sort') ?? '', q: params.get('q') ?? '' };
const PER_PAGE = 20;
let latest = 0;

async function showLeads(marked = null) {
  const turn = ++latest;
  const query = new URLSearchParams({ page: view.page, per_page: PER_PAGE });
  if (view.sort) query.set('sort', view.sort);
  if (view.q) query.set('q', view.q);
  let answer;
  try {
    const response = await fetch('/leads?' + query);
    if (!response.ok) throw new Error(response.status);
    answer = await response.json();
  } catch {
    if (turn === latest && !$('leads').children.length) empty('The leads cannot be shown right now. Try again in a moment.');
    return;
  }
  if (turn !== latest) return;
  const pages = Math.max(1, Math.ceil(answer.total / PER_PAGE));
  if (view.page > pages) {
    view.page = pages;
    return showLeads(marked);
  }
  $('leads').replaceChildren(...answer.leads.map((lead) => {
    const row = document.createElement('tr');
    if (marked && lead.job_id === marked) row.className = 'new';
    for (const [field] of FIELDS) {
      const cell = row.insertCell();
      cell.textContent = lead[field];
      cell.title = lead[field];
    }
    return row;
  }));
  $('total').textContent = answer.total ? number.format(answer.total) : '';
  $('page').textContent = `${number.format(view.page)} of ${number.format(pages)}`;
  $('previous').disabled = view.page <= 1;
  $('next').disabled = view.page >= pages;
  empty(answer.total ? '' : view.q ? 'No lead contains that.' : 'No leads yet.');
  const address = new URLSearchParams(Object.entries({ ...view, page: view.page > 1 ? view.page : '' }).filter(([, v]) => v));
  history.replaceState(null, '', address.size ? '?' + address : location.pathname);
}

function empty(text) {
  $('empty').hidden = !text;
  $('empty').textContent = text;
}

function showColumns() {
  $('columns').replaceChildren(...FIELDS.map(([field, name]) => {
    const heading = document.createElement('th');
    heading.scope = 'col';
    const order = view.sort === field ? 'ascending' : view.sort === '-' + field ? 'descending' : 'none';
    heading.ariaSort = order;
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.field = field;
    button.textContent = name + { ascending: ' ↑', descending: ' ↓', none: '' }[order];
    button.onclick = () => {
      view.sort = order === 'none' ? field : order === 'ascending' ? '-' + field : '';
      view.page = 1;
      showColumns();
      $('columns').querySelector(`[data-field=${field}]`).focus();
      showLeads();
    };
    heading.append(button);
    return heading;
  }));
}

let typing;
$('search').value = view.q;
$('search').oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    view.q = $('search').value.trim();
    view.page = 1;
    showLeads();
  }, 200);
};
$('previous').onclick = () => { view.page--; showLeads(); };
$('next').onclick = () => { view.page++; showLeads(); };

// --- Past imports.

let cursor = null;

async function showJobs(more = false) {
  const query = new URLSearchParams({ limit: 10 });
  if (more && cursor) query.set('cursor', cursor);
  try {
    const response = await fetch('/jobs?' + query);
    if (!response.ok) return;
    const { jobs, next_cursor } = await response.json();
    cursor = next_cursor;
    const rows = jobs.map(jobRow);
    if (more) $('jobs').append(...rows);
    else $('jobs').replaceChildren(...rows);
    $('more').hidden = !cursor;
  } catch {
    // What is shown stays.
  }
}

function jobRow(job) {
  const row = document.createElement('li');
  const name = document.createElement('bdi');
  name.className = 'name';
  name.textContent = job.title;
  const what = document.createElement('span');
  what.className = job.status === 'failed' ? 'failed' : 'what';
  const { processed, failed } = job.progress.items;
  what.textContent = [job.label, processed && `${number.format(processed)} leads`, failed && `${number.format(failed)} failed`]
    .filter(Boolean).join(' · ');
  const when = document.createElement('time');
  when.dateTime = job.created_at;
  when.textContent = new Date(job.created_at).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
  row.append(name, what, when);
  if (job.failure) {
    const why = document.createElement('span');
    why.className = 'failed';
    why.textContent = job.failure.message;
    row.append(why);
  }
  if (failed) {
    const errors = document.createElement('a');
    errors.href = `/jobs/${job.id}/errors?format=csv`;
    errors.download = '';
    errors.textContent = 'Failed rows';
    row.append(errors);
  }
  return row;
}

$('more').onclick = () => showJobs(true);

// --- Uploads: several at once, each with its indicator.

const uploads = new Map();

async function upload(file) {
  problem('');
  let created;
  try {
    const response = await fetch('/jobs', {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': crypto.randomUUID?.() ?? String(Math.random()) },
      body: JSON.stringify({ file_name: file.name, size: file.size, content_type: file.type }),
    });
    created = await response.json();
    if (!response.ok) return problem(`${file.name}: ${created.detail}`, file);
  } catch {
    return problem(`${file.name}: the server cannot be reached.`, file);
  }
  const { job, upload: target } = created;
  const src = '/jobs/' + job.id;
  const indicator = $('status').add(src, job);
  const request = new XMLHttpRequest();
  uploads.set(src, request);
  let told = 0;
  request.upload.onprogress = ({ loaded, total }) => {
    indicator.uploading(loaded, total);
    if (performance.now() - told > 2000) {
      told = performance.now();
      fetch(src + '/upload-progress', {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ bytes: loaded }),
      }).catch(() => {});
    }
  };
  request.onload = () => {
    uploads.delete(src);
    if (request.status < 300) {
      // A storage of its own cannot tell the server by itself.
      const elsewhere = new URL(target.url, location).origin !== location.origin;
      return elsewhere && fetch(src + '/uploaded', { method: 'POST' }).catch(() => {});
    }
    let detail = 'the upload was refused.';
    try {
      detail = JSON.parse(request.responseText).detail ?? detail;
    } catch {
      // Not one of ours: the storage's own words are not for people.
    }
    problem(`${file.name}: ${detail}`, file);
  };
  request.onerror = () => {
    uploads.delete(src);
    problem(`${file.name}: the upload was interrupted.`, file);
  };
  request.open(target.method, target.url);
  for (const [name, value] of Object.entries(target.headers)) request.setRequestHeader(name, value);
  request.send(file);
}

function problem(text, file = null) {
  $('problem').hidden = !text;
  $('problem').textContent = text;
  if (!file) return;
  const again = document.createElement('button');
  again.type = 'button';
  again.textContent = 'Try again';
  again.onclick = () => upload(file);
  $('problem').append(' ', again);
}

$('file').onchange = () => {
  for (const file of $('file').files) upload(file);
  $('file').value = '';
};
const drop = $('drop');
for (const name of ['dragenter', 'dragover']) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add('over'); });
for (const name of ['dragleave', 'drop']) drop.addEventListener(name, () => drop.classList.remove('over'));
drop.addEventListener('drop', (event) => {
  event.preventDefault();
  for (const file of event.dataTransfer.files) upload(file);
});

// --- What the indicators report.

let toasting;
function toast(text) {
  clearTimeout(toasting);
  $('toast').textContent = text;
  $('toast').classList.add('shown');
  toasting = setTimeout(() => $('toast').classList.remove('shown'), 4000);
}

addEventListener('job-status:completed', ({ detail }) => {
  const { processed, failed } = detail.progress.items;
  toast(`${number.format(processed)} leads imported from ${detail.title}` + (failed ? `, ${number.format(failed)} failed` : ''));
  showLeads(detail.id);
  showJobs();
});
for (const name of ['failed', 'cancelled']) {
  addEventListener('job-status:' + name, ({ target, detail }) => {
    uploads.get(target.getAttribute('src'))?.abort();
    uploads.delete(target.getAttribute('src'));
    showJobs();
    if (detail.progress.items.processed) showLeads(detail.id);
  });
}

// Whatever the indicators cover can be scrolled out from under them, and what has the focus is never under them.
new ResizeObserver(() => {
  document.documentElement.style.setProperty('--covered', `${$('status').offsetHeight}px`);
}).observe($('status'));

showColumns();
showLeads();
showJobs();
