// <job-status src="/jobs/{id}"> shows how far a job is; <job-status-list src="/jobs"> shows several in a corner.
// No dependencies, no build step, nothing inline that a strict Content-Security-Policy would refuse.

/** Words by language. Add one: `customElements.get('job-status').messages.fr = {...}`; what it lacks stays English. */
const messages = {
  en: {
    status: {},
    other: 'In progress',
    cancelling: 'Cancelling…',
    waiting: 'Waiting to be processed',
    bytes: (done, total, speed) => `${done} of ${total}` + (speed ? ` · ${speed}/s` : ''),
    batches: (done, total) => `${done} of ${total} batches`,
    soFar: (done) => `${done} batches so far`,
    running: (n) => `${n} running`,
    failedBatches: (n) => `${n} failed`,
    estimate: (estimate) => estimate.text,
    stalled: 'No progress for a while. It goes on by itself as soon as it can.',
    processed: (n, noun) => `${n} ${noun} processed`,
    failedItems: (n) => `${n} failed`,
    empty: 'There was nothing to process.',
    unprocessed: (n) => `${n} not processed`,
    reached: (done, total) => `Stopped after ${done} of ${total} batches`,
    at: { upload: 'While uploading', split: 'While reading the file', process: 'While processing' },
    retry: 'Uploading the file again may help.',
    errors: 'Download failed rows',
    errorsBound: 'At most 100 rows of each batch are listed.',
    cancel: 'Cancel',
    notCancelled: 'It could not be cancelled.',
    tryCancelAgain: 'The request to cancel did not arrive. Try again.',
    dismiss: 'Dismiss',
    lost: 'Connection lost. Reconnecting…',
    gone: 'This job is no longer available.',
    progress: (name) => `Progress of ${name}`,
    list: (n) => (n === 1 ? '1 upload' : `${n} uploads`),
  },
  de: {
    status: {
      uploading: 'Datei wird hochgeladen', uploaded: 'Datei hochgeladen', processing: 'In Bearbeitung',
      completed: 'Fertig', failed: 'Fehlgeschlagen', cancelled: 'Abgebrochen', waiting: 'Wartet',
    },
    other: 'In Arbeit',
    cancelling: 'Wird abgebrochen…',
    waiting: 'Wartet auf die Bearbeitung',
    bytes: (done, total, speed) => `${done} von ${total}` + (speed ? ` · ${speed}/s` : ''),
    batches: (done, total) => `${done} von ${total} Stapeln`,
    soFar: (done) => `bisher ${done} Stapel`,
    running: (n) => `${n} in Arbeit`,
    failedBatches: (n) => `${n} fehlgeschlagen`,
    estimate: (estimate) => `noch etwa ${minutes(estimate.remaining_ms, 'de')}`,
    stalled: 'Seit einer Weile kein Fortschritt. Es geht von selbst weiter.',
    processed: (n) => `${n} verarbeitet`,
    failedItems: (n) => `${n} fehlgeschlagen`,
    empty: 'Es gab nichts zu verarbeiten.',
    unprocessed: (n) => `${n} nicht verarbeitet`,
    reached: (done, total) => `Angehalten nach ${done} von ${total} Stapeln`,
    at: { upload: 'Beim Hochladen', split: 'Beim Lesen der Datei', process: 'Bei der Verarbeitung' },
    retry: 'Erneutes Hochladen kann helfen.',
    errors: 'Fehlgeschlagene Zeilen herunterladen',
    errorsBound: 'Je Stapel werden höchstens 100 Zeilen aufgeführt.',
    cancel: 'Abbrechen',
    notCancelled: 'Abbrechen war nicht möglich.',
    tryCancelAgain: 'Die Anfrage kam nicht an. Bitte noch einmal versuchen.',
    dismiss: 'Schließen',
    lost: 'Verbindung verloren. Neuer Versuch…',
    gone: 'Dieser Auftrag ist nicht mehr vorhanden.',
    progress: (name) => `Fortschritt von ${name}`,
    list: (n) => (n === 1 ? '1 Datei' : `${n} Dateien`),
  },
};

const HIDE_AFTER = 3000;
const READABLE = 250; // So long every status stays, however fast a job is.
const MAX_STREAMS = 3; // Browsers allow six connections to a host over HTTP/1.1, and the page needs some.
const FIRST_SNAPSHOT_WITHIN = 4000; // A proxy that buffers holds events back: then ask instead.
const LOST_AFTER = 2500;
const SILENT_FOR = 30000;
const terminal = (s) => ['completed', 'failed', 'cancelled'].includes(s?.status);

const minutes = (ms, lang) => {
  const unit = ms < 3.45e6 ? ['minute', 6e4] : ['hour', 3.6e6];
  const n = Math.max(1, Math.round(ms / unit[1]));
  return new Intl.NumberFormat(lang, { style: 'unit', unit: unit[0], unitDisplay: 'long' }).format(n);
};

let streams = 0;

/** Follows a job: server-sent events; where they do not get through, long-polls; where those do not, polls. */
class Feed {
  constructor(src, seen) {
    this.src = src;
    this.seen = seen;
    this.failures = 0;
    this.onVisible = () => this.restart();
    document.addEventListener('visibilitychange', this.onVisible);
    addEventListener('online', this.onVisible);
    addEventListener('pageshow', this.onVisible);
    this.restart();
  }

  stop() {
    this.halt();
    document.removeEventListener('visibilitychange', this.onVisible);
    removeEventListener('online', this.onVisible);
    removeEventListener('pageshow', this.onVisible);
    this.stopped = true;
  }

  halt() {
    this.run = {}; // Whatever still runs belongs to the past.
    clearTimeout(this.timer);
    clearTimeout(this.lostTimer);
    this.abort?.abort();
    if (this.stream) {
      this.stream.close();
      this.stream = null;
      streams--;
    }
  }

  restart() {
    if (this.stopped) return;
    this.halt();
    this.failures = 0;
    // A tab in the background leaves the connections to the others, and asks from time to time.
    if (document.hidden || !window.EventSource || streams >= MAX_STREAMS) this.ask(false, this.run);
    else this.listen();
  }

  take(snapshot) {
    clearTimeout(this.lostTimer);
    this.lostTimer = null;
    this.failures = 0;
    this.seen({ connected: true, snapshot });
    if (terminal(snapshot)) this.stop();
  }

  lost(run) {
    this.lostTimer ??= setTimeout(() => run === this.run && this.seen({ connected: false }), LOST_AFTER);
  }

  listen() {
    const run = this.run;
    const stream = (this.stream = new EventSource(this.src + '/events'));
    streams++;
    const fallBack = () => {
      if (run !== this.run) return;
      this.halt();
      this.ask(true, this.run);
    };
    const watch = (ms) => {
      clearTimeout(this.timer);
      this.timer = setTimeout(fallBack, ms);
    };
    watch(FIRST_SNAPSHOT_WITHIN);
    stream.addEventListener('snapshot', (event) => {
      if (run !== this.run) return;
      watch(SILENT_FOR);
      this.take(JSON.parse(event.data));
    });
    stream.onerror = () => {
      if (run !== this.run) return;
      this.lost(run);
      if (stream.readyState === EventSource.CLOSED) fallBack();
      else watch(FIRST_SNAPSHOT_WITHIN);
    };
  }

  /** Asks for a snapshot, and again: `wait` lets the server answer when there is news. */
  async ask(wait, run) {
    const headers = { accept: 'application/json' };
    if (this.etag) headers['if-none-match'] = this.etag;
    const began = performance.now();
    let failed = false;
    try {
      this.abort = new AbortController();
      const patience = setTimeout(() => this.abort.abort(), 30000);
      const url = wait && this.etag ? this.src + '?wait=20' : this.src;
      const response = await fetch(url, { headers, signal: this.abort.signal, cache: 'no-store' });
      if (run !== this.run) return clearTimeout(patience);
      if (response.status === 404 || response.status === 410) {
        clearTimeout(patience);
        this.stop();
        return this.seen({ gone: true });
      }
      if (response.status !== 304 && !response.ok) throw new Error(response.status);
      this.retryAfter = 0;
      if (response.ok) {
        const snapshot = await response.json();
        if (run !== this.run) return clearTimeout(patience);
        this.etag = response.headers.get('etag');
        this.advice = snapshot.poll_after_ms ?? 2000;
        this.take(snapshot);
      } else {
        this.seen({ connected: true });
      }
      clearTimeout(patience);
      this.failures = 0;
    } catch {
      if (run !== this.run) return;
      failed = true;
      this.failures++;
      this.lost(run);
    }
    if (this.stopped || run !== this.run) return;
    const quick = performance.now() - began < 1000;
    // A long-poll that fails twice does not get through; one that answers at once with nothing new does not wait.
    const waiting = wait && this.failures < 2;
    this.idle = waiting && !failed && quick ? (this.idle ?? 0) + 1 : 0;
    let pause = waiting && !failed && this.idle < 5 ? 0 : (this.advice ?? 2000);
    if (failed) pause = Math.min(60000, Math.max(pause, 1000) * 2 ** (this.failures - 1));
    if (document.hidden) pause = Math.max(pause, 10000);
    pause *= 1 + Math.random() * 0.3;
    this.timer = setTimeout(() => run === this.run && this.ask(waiting || this.failures === 0 && wait, run), pause);
  }
}

const style = new CSSStyleSheet();
style.replaceSync(`
:host { display: block; font: var(--job-status-font, 14px/1.45 system-ui, sans-serif); color-scheme: light dark;
  --bg: var(--job-status-background, light-dark(#fff, #1d2126)); --fg: var(--job-status-color, light-dark(#1c2430, #e8ecf1));
  --muted: var(--job-status-muted, light-dark(#566070, #a5b0bd)); --track: var(--job-status-track, light-dark(#e4e8ee, #363d46));
  --accent: var(--job-status-accent, light-dark(#1f6feb, #5b9dff)); --good: var(--job-status-success, light-dark(#187a3c, #4cc474));
  --bad: var(--job-status-failure, light-dark(#c22f2f, #ff8078)); --warn: var(--job-status-warning, light-dark(#8f5b00, #e3ad4a));
  --line: var(--job-status-border, light-dark(#d5dbe3, #3a424c)); }
:host([hidden]) { display: none; }
* { box-sizing: border-box; }
.box { background: var(--bg); color: var(--fg); border: 1px solid var(--line); border-radius: var(--job-status-radius, 10px);
  padding: 12px 14px; display: grid; gap: 8px; transition: opacity .3s; min-width: 0; }
.box.leaving { opacity: 0; }
.head { display: flex; align-items: baseline; gap: 8px; min-width: 0; }
.label { font-weight: 600; white-space: nowrap; }
.file { color: var(--muted); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; flex: 1; min-width: 0; }
.share { font-variant-numeric: tabular-nums; color: var(--muted); }
.track { height: 8px; border-radius: 4px; background: var(--track); overflow: hidden; position: relative; forced-color-adjust: none; }
.bar { height: 100%; width: 0; border-radius: 4px; background: var(--accent); transition: width .6s ease-out, background-color .3s; }
.unknown .bar { transition: none; width: 0 !important; }
.unknown .track::after { content: ''; position: absolute; inset-block: 0; width: 35%; border-radius: 4px; background: var(--accent);
  animation: slide 1.6s ease-in-out infinite alternate; }
@keyframes slide { from { inset-inline-start: 0; } to { inset-inline-start: 65%; } }
.completed .bar { background: var(--good); } .completed .label { color: var(--good); }
.failed .bar { background: var(--bad); } .failed .label { color: var(--bad); }
.cancelled .bar, .cancelling .bar { background: var(--muted); }
.stalled .bar, .stalled .track::after { background: var(--warn); animation-play-state: paused; }
.foot { display: flex; align-items: center; justify-content: flex-end; gap: 6px 12px; flex-wrap: wrap; }
.detail { color: var(--muted); flex: 1 1 12em; min-width: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.error, .note { overflow-wrap: anywhere; } .error { color: var(--bad); } .note { color: var(--warn); }
.error:empty, .note:empty, .detail:empty { display: none; }
button, a { font: inherit; color: var(--accent); background: none; border: 1px solid transparent; border-radius: 6px; padding: 2px 8px;
  min-height: 28px; cursor: pointer; text-decoration: none; display: inline-flex; align-items: center; }
button { border-color: var(--line); } button:hover, a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[hidden] { display: none !important; }
.quiet { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (prefers-reduced-motion: reduce) { .bar, .box { transition: none; } .unknown .track::after { animation: none; width: 100%; opacity: .45; } }
@media (forced-colors: active) { .track { background: Canvas; border: 1px solid CanvasText; } .bar, .track::after { background: Highlight !important; } }
`);

const element = (tag, part, attributes = {}) => {
  const node = document.createElement(tag);
  node.className = part;
  if (part) node.setAttribute('part', part);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

class JobStatus extends HTMLElement {
  static observedAttributes = ['src'];
  static messages = messages;
  #feed = null;
  #seen = {};
  #next = []; // Snapshots that wait for their turn.
  #since = 0;
  #turn = null;
  #upload = null;
  #note = '';
  #timer = null;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [style];
    const $ = (this.$ = {
      box: element('div', 'box'),
      head: element('div', 'head'),
      label: element('span', 'label'),
      file: element('bdi', 'file'),
      share: element('span', 'share', { 'aria-hidden': 'true' }),
      track: element('div', 'track', { role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100 }),
      bar: element('div', 'bar'),
      foot: element('div', 'foot'),
      detail: element('span', 'detail'),
      errors: element('a', 'errors', { download: '', hidden: '' }),
      cancel: element('button', 'cancel', { type: 'button', hidden: '' }),
      dismiss: element('button', 'dismiss', { type: 'button', hidden: '' }),
      error: element('div', 'error', { role: 'alert' }),
      note: element('div', 'note'),
      live: element('div', 'quiet', { role: 'status', 'aria-live': 'polite' }),
    });
    $.head.append($.label, $.file, $.share);
    $.track.append($.bar);
    $.foot.append($.detail, $.errors, $.cancel, $.dismiss);
    $.box.append($.head, $.track, $.error, $.note, $.foot, $.live);
    root.append($.box);
    $.cancel.onclick = () => this.cancel();
    $.dismiss.onclick = () => this.dismiss();
    for (const name of ['mouseenter', 'focusin', 'mouseleave', 'focusout']) $.box.addEventListener(name, () => this.#arm());
  }

  connectedCallback() {
    this.hidden = !this.#seen.snapshot;
    this.#start();
  }

  disconnectedCallback() {
    this.#stop();
  }

  attributeChangedCallback(_, before, after) {
    if (before === after || !this.isConnected) return;
    this.#seen = {};
    this.#next = [];
    this.#upload = null;
    this.#start();
  }

  /** The newest snapshot. */
  get snapshot() {
    return this.#seen.snapshot;
  }

  /** What the page knows of the upload before the server does: bytes sent so far, and in all. */
  uploading(bytes, total) {
    const now = performance.now();
    const first = (this.#upload ??= { since: now, from: bytes });
    const seconds = (now - first.since) / 1000;
    this.#upload = { ...first, bytes, total, speed: seconds > 1 ? (bytes - first.from) / seconds : 0 };
    this.#render();
  }

  /** The upload did not work: shown as the connection's fault, with the job as it is. */
  note(text) {
    this.#note = text ?? '';
    this.#render();
  }

  /** Asks the server to cancel. Shown as cancelled only when the server says so. */
  async cancel() {
    if (!this.dispatchEvent(new CustomEvent('job-status:cancel', { cancelable: true, bubbles: true }))) return;
    const { cancel } = this.$;
    cancel.disabled = true;
    this.#note = '';
    try {
      const response = await fetch(this.#src + '/cancel', { method: 'POST' });
      const answer = await response.json();
      if (response.ok) this.#take({ connected: true, snapshot: answer });
      else this.#note = `${this.#words.notCancelled} ${answer.detail ?? ''}`.trim();
    } catch {
      this.#note = this.#words.tryCancelAgain;
    }
    cancel.disabled = false;
    this.#render();
  }

  /** Hides the indicator. */
  dismiss() {
    clearTimeout(this.#timer);
    this.#stop();
    this.hidden = true;
    this.dispatchEvent(new CustomEvent('job-status:dismissed', { bubbles: true }));
  }

  get #src() {
    return (this.getAttribute('src') ?? '').replace(/\/+$/, '');
  }

  get #lang() {
    return this.closest('[lang]')?.lang || navigator.language || 'en';
  }

  get #words() {
    const { en } = messages;
    return { ...en, ...(messages[this.#lang] ?? messages[this.#lang.split('-')[0]] ?? en) };
  }

  #start() {
    this.#stop();
    if (!this.#src) return;
    this.#feed = new Feed(this.#src, (seen) => this.#take(seen));
  }

  #stop() {
    clearTimeout(this.#turn);
    this.#feed?.stop();
    this.#feed = null;
  }

  /** Shows a snapshot that the page has already, such as the answer to the creation of the job. */
  show(snapshot) {
    this.#take({ snapshot });
  }

  #take({ snapshot, connected, gone }) {
    this.#seen.connected = connected ?? this.#seen.connected;
    this.#seen.gone = gone;
    const before = this.#next.at(-1) ?? this.#seen.snapshot;
    // What is older than what was shown is dropped: progress never goes back.
    if (snapshot && !(before && (snapshot.version < before.version || terminal(before)))) {
      // A file that is being processed was uploaded in between.
      if (before?.status === 'uploading' && snapshot.started_at && snapshot.status !== 'uploaded')
        this.#next.push({ ...before, status: 'uploaded', label: 'File Uploaded' });
      if (this.#next.at(-1)?.status === snapshot.status) this.#next.pop();
      this.#next.push(snapshot);
      if (terminal(snapshot)) this.#feed?.stop();
    }
    this.#advance();
  }

  /** Shows what waits, each status for long enough to be read. */
  #advance() {
    clearTimeout(this.#turn);
    const before = this.#seen.snapshot;
    const [now] = this.#next;
    const wait = now && before && now.status !== before.status ? this.#since + READABLE - performance.now() : 0;
    if (wait > 0) this.#turn = setTimeout(() => this.#advance(), wait);
    if (!now || wait > 0) return this.#render();
    this.#next.shift();
    this.#seen.snapshot = now;
    if (before?.status !== now.status) {
      this.#note = '';
      this.#since = performance.now();
    }
    this.#render();
    this.#emit('change', now);
    if (terminal(now)) {
      this.#emit(now.status, now);
      this.#arm();
    }
    if (this.#next.length) this.#advance();
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent('job-status:' + name, { detail, bubbles: true, composed: true }));
  }

  /** After completion it hides, unless somebody is looking at it closely. */
  #arm() {
    clearTimeout(this.#timer);
    this.$.box.classList.remove('leaving');
    if (this.#seen.snapshot?.status !== 'completed' || this.hidden) return;
    this.#timer = setTimeout(() => {
      if (this.$.box.matches(':hover, :focus-within')) return;
      this.$.box.classList.add('leaving');
      this.#timer = setTimeout(() => this.dismiss(), 300);
    }, HIDE_AFTER);
  }

  #render() {
    const { $, $: { box } } = this;
    const { snapshot: s, connected, gone } = this.#seen;
    const words = this.#words;
    if (!s) {
      this.hidden = !gone && !this.#note;
      text($.error, gone ? words.gone : this.#note);
      $.dismiss.hidden = this.hidden;
      text($.dismiss, words.dismiss);
      return;
    }
    if (!terminal(s) || !this.hidden || !this.$.label.textContent) this.hidden = false;
    const number = (n) => new Intl.NumberFormat(this.#lang).format(n);
    const cancelling = !!s.cancel_requested && !terminal(s);
    const known = ['uploading', 'uploaded', 'processing', 'completed', 'failed', 'cancelled'].includes(s.status);
    const state = s.status === 'uploaded' && !s.file ? 'waiting' : s.status; // A job need not be a file.
    const label = cancelling ? words.cancelling : !known ? words.other : (words.status[state] ?? s.label);
    const view = this.#view(s, words, number);
    const stalled = s.health === 'stalled' && !terminal(s);
    box.className = ['box', s.status, cancelling && 'cancelling', stalled && 'stalled', view.share == null && 'unknown',
      box.classList.contains('leaving') && 'leaving'].filter(Boolean).join(' ');
    text($.label, label);
    text($.file, s.title);
    $.file.title = s.title;
    // 999 of 1,000 is not 100%.
    const percent = view.share == null ? null : s.status === 'completed' ? 100 : Math.min(99, Math.floor(view.share * 100));
    const shown = percent == null ? '' : new Intl.NumberFormat(this.#lang, { style: 'percent' }).format(percent / 100);
    text($.share, shown);
    $.bar.style.width = view.share == null ? '' : Math.min(100, view.share * 100) + '%';
    if (percent == null) $.track.removeAttribute('aria-valuenow');
    else $.track.setAttribute('aria-valuenow', percent);
    $.track.setAttribute('aria-valuetext', [label, shown, ...view.detail].filter(Boolean).join(', '));
    $.track.setAttribute('aria-label', words.progress(s.title));
    text($.detail, view.detail.join(' · '));
    const failure = s.status === 'failed' && s.failure;
    const where = failure && words.at[failure.stage];
    text($.error, failure ? `${where ? where + ': ' : ''}${failure.message}${failure.retryable && !/again/i.test(failure.message) ? ' ' + words.retry : ''}` : '');
    text($.note, connected === false && !terminal(s) ? words.lost : this.#note || (stalled ? words.stalled : ''));
    $.errors.hidden = !(terminal(s) && s.progress.items.failed > 0);
    text($.errors, words.errors);
    $.errors.title = words.errorsBound;
    $.errors.href = this.#src + '/errors?format=csv';
    $.cancel.hidden = terminal(s) || cancelling || !known;
    text($.cancel, words.cancel);
    $.dismiss.hidden = !terminal(s);
    text($.dismiss, words.dismiss);
    text($.live, s.status === 'failed' ? '' : `${label}: ${s.title}`);
  }

  /** The share that is done, if known, and what to say of it. */
  #view(s, words, number) {
    const { upload, batches, items, fraction } = s.progress;
    const noun = this.getAttribute('noun') ?? 'items';
    const done = [];
    if (s.status === 'uploading') {
      const sent = Math.max(upload.bytes, this.#upload?.bytes ?? 0);
      const total = this.#upload?.total || upload.total;
      const speed = this.#upload?.speed;
      return { share: total ? Math.min(1, sent / total) : null, detail: [words.bytes(size(sent, number), size(total, number), speed ? size(speed, number) : '')] };
    }
    if (s.status === 'uploaded') return { share: null, detail: [words.waiting] };
    if (terminal(s)) {
      if (s.outcome === 'empty') return { share: 1, detail: [words.empty] };
      if (s.status !== 'completed' && batches.total) done.push(words.reached(number(batches.completed), number(batches.total)));
      if (items.processed || batches.total) done.push(words.processed(number(items.processed), noun));
      if (items.failed) done.push(words.failedItems(number(items.failed)));
      const rest = items.total == null ? 0 : items.total - items.processed - items.failed;
      if (rest > 0) done.push(words.unprocessed(number(rest)));
      const share = s.status === 'completed' ? 1 : (fraction ?? (upload.total ? upload.bytes / upload.total : 0) * (s.started_at ? 0 : 1));
      return { share, detail: done };
    }
    const settled = batches.completed + batches.failed;
    if (s.stage) done.push(s.stage);
    else if (batches.total == null) done.push(words.soFar(number(settled)));
    if (batches.total != null) done.push(words.batches(number(settled), number(batches.total)));
    if (batches.running) done.push(words.running(number(batches.running)));
    if (batches.failed) done.push(words.failedBatches(number(batches.failed)));
    if (s.estimate && !s.cancel_requested) done.push(words.estimate(s.estimate));
    return { share: fraction, detail: done };
  }
}

/** Changes a text only when it differs, so that live regions and animations are left alone. */
const text = (node, value) => {
  if (node.textContent !== value) node.textContent = value;
};

const size = (bytes, number) => {
  const units = ['B', 'KB', 'MB', 'GB'];
  const power = Math.min(3, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  const value = bytes / 1000 ** power;
  return `${number(value < 10 && power ? Math.round(value * 10) / 10 : Math.round(value))} ${units[power]}`;
};

const listStyle = new CSSStyleSheet();
listStyle.replaceSync(`
:host { position: fixed; inset-block-end: 16px; inset-inline-end: 16px; width: min(420px, calc(100vw - 32px)); z-index: 10;
  color-scheme: light dark; font: var(--job-status-font, 14px/1.45 system-ui, sans-serif); }
:host([hidden]) { display: none; }
.panel { background: var(--job-status-background, light-dark(#f5f7fa, #14171b)); color: var(--job-status-color, light-dark(#1c2430, #e8ecf1));
  border: 1px solid var(--job-status-border, light-dark(#d5dbe3, #3a424c)); border-radius: 12px; box-shadow: 0 8px 30px #0003; overflow: hidden; }
button { all: unset; box-sizing: border-box; width: 100%; padding: 10px 14px; font-weight: 600; cursor: pointer; display: flex; justify-content: space-between; }
button:focus-visible { outline: 2px solid Highlight; outline-offset: -3px; border-radius: 12px; }
.jobs { display: grid; gap: 8px; padding: 0 8px 8px; max-height: min(60vh, 480px); overflow: auto; }
.collapsed .jobs { display: none; }
`);

class JobStatusList extends HTMLElement {
  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [listStyle];
    this.panel = element('section', 'panel');
    this.toggle = element('button', 'toggle', { type: 'button', 'aria-expanded': 'true', 'aria-controls': 'jobs' });
    this.count = element('span', 'count');
    this.arrow = element('span', 'arrow', { 'aria-hidden': 'true' });
    const jobs = element('div', 'jobs', { id: 'jobs' });
    jobs.append(document.createElement('slot'));
    this.toggle.append(this.count, this.arrow);
    this.panel.append(this.toggle, jobs);
    root.append(this.panel);
    this.toggle.onclick = () => {
      const collapsed = this.panel.classList.toggle('collapsed');
      this.toggle.setAttribute('aria-expanded', String(!collapsed));
      this.#update();
    };
    this.addEventListener('job-status:dismissed', (event) => {
      event.target.remove();
      this.#update();
    });
  }

  connectedCallback() {
    this.#update();
    this.restore();
  }

  /** Shows a job, newest first, from this snapshot on if the page has one; gives its indicator. */
  add(src, snapshot) {
    const known = [...this.children].find((child) => child.getAttribute('src') === src);
    if (known) return known;
    const job = document.createElement('job-status');
    job.setAttribute('src', src);
    const noun = this.getAttribute('noun');
    if (noun) job.setAttribute('noun', noun);
    this.prepend(job);
    if (snapshot) job.show(snapshot);
    this.#update();
    return job;
  }

  /** Finds the jobs that still run: after a reload, for one. */
  async restore() {
    const src = this.getAttribute('src');
    if (!src) return;
    try {
      const response = await fetch(src, { headers: { accept: 'application/json' } });
      const { jobs } = await response.json();
      for (const job of jobs.filter((job) => !terminal(job)).reverse()) this.add(`${src}/${job.id}`);
    } catch {
      // The page is usable without; the next load tries again.
    }
  }

  #update() {
    this.hidden = this.children.length === 0;
    const lang = this.closest('[lang]')?.lang.split('-')[0];
    const words = { ...messages.en, ...messages[lang] };
    text(this.count, words.list(this.children.length));
    this.panel.setAttribute('aria-label', this.count.textContent);
    text(this.arrow, this.panel.classList.contains('collapsed') ? '▴' : '▾');
  }
}

customElements.define('job-status', JobStatus);
customElements.define('job-status-list', JobStatusList);
