//! The connections: bounded in number and in time, so that those who hold them idle take none from others.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// How long the head of a request may take, from the moment a connection waits for one.
const HEAD: Duration = Duration::from_secs(15);
/// How long whoever is answered may take nothing of it.
const STALLED: Duration = Duration::from_secs(30);
/// How long to wait where the system has no more files for connections.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// The most connections, if the system allows as many files.
const MOST: usize = 4_096;

/// Serves until `shutdown`; then accepts nothing more, and lets requests end that are under way.
pub(crate) async fn serve(listener: TcpListener, app: Router, shutdown: CancellationToken) {
    let (connections, tasks) = (Connections::new(bound()), TaskTracker::new());
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let Some(connection) = connections.admit() else { continue };
                tasks.spawn(serve_one(stream, peer, app.clone(), connection, shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    connection: Connection,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let (busy, receiving) = (connection.busy.clone(), connection.receiving.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let (app, busy, receiving) = (app.clone(), Busy::new(&busy), Busy::new(&receiving));
        async move {
            let request = request.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _ = &receiving;
                    frame
                }))
            });
            let response = app.oneshot(request).await?;
            // It is busy as long as there is something to send.
            Ok::<_, std::convert::Infallible>(response.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &busy;
                    frame
                })
            }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut served = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let mut ending = pin!(shutdown.cancelled_owned());
    let mut is_ending = false;
    loop {
        tokio::select! {
            served = &mut served => {
                if let Err(error) = served {
                    tracing::debug!(%peer, %error, "a connection broke");
                }
                return;
            }
            () = connection.evicted.cancelled() => return tracing::debug!(%peer, "an idle connection gave way"),
            () = &mut ending, if !is_ending => {
                is_ending = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// All connections. Where they are too many, the oldest that waits for a request gives way to a new one, or else the oldest
/// whose request is still coming.
#[derive(Clone, Debug)]
struct Connections {
    all: Arc<Mutex<All>>,
    most: usize,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Clone, Debug)]
struct Open {
    /// How many requests are under way, and how many of them are still coming.
    busy: Arc<AtomicUsize>,
    receiving: Arc<AtomicUsize>,
    evicted: CancellationToken,
}

impl Connections {
    fn new(most: usize) -> Self {
        Self { all: Arc::default(), most }
    }

    /// A place for one more; none if all are being answered.
    fn admit(&self) -> Option<Connection> {
        let mut all = lock(&self.all);
        if all.open.len() >= self.most {
            let idle = |open: &Open| open.busy.load(Ordering::Relaxed) == 0;
            let receiving = |open: &Open| open.receiving.load(Ordering::Relaxed) > 0;
            let first = |gives_way: &dyn Fn(&Open) -> bool| {
                all.open.iter().find(|(_, open)| gives_way(open)).map(|(number, _)| *number)
            };
            let oldest = first(&idle).or_else(|| first(&receiving))?;
            all.open.remove(&oldest)?.evicted.cancel();
        }
        let number = all.next;
        all.next += 1;
        let open =
            Open { busy: Arc::default(), receiving: Arc::default(), evicted: CancellationToken::new() };
        all.open.insert(number, open.clone());
        let Open { busy, receiving, evicted } = open;
        Some(Connection { number, all: self.all.clone(), busy, receiving, evicted })
    }
}

#[derive(Debug)]
struct Connection {
    number: u64,
    all: Arc<Mutex<All>>,
    busy: Arc<AtomicUsize>,
    receiving: Arc<AtomicUsize>,
    evicted: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.all).open.remove(&self.number);
    }
}

/// A request under way, until its answer has been sent.
#[derive(Debug)]
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock(all: &Mutex<All>) -> MutexGuard<'_, All> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Half of the files that this process may have open: the others are for jobs, uploads and their readers.
#[cfg(unix)]
fn bound() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = 2 * MOST as u64;
    let raised = maximum.unwrap_or(wanted).min(wanted).max(current.unwrap_or(wanted));
    let has_raised = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok();
    let files = if has_raised { raised } else { current.unwrap_or(wanted) };
    usize::try_from(files / 2).unwrap_or(MOST).min(MOST)
}

#[cfg(not(unix))]
fn bound() -> usize {
    MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_idle_connection_gives_way_and_busy_ones_do_not() {
        let connections = Connections::new(2);
        let (first, second) = (connections.admit().expect("room"), connections.admit().expect("room"));
        let busy = Busy::new(&first.busy);
        let third = connections.admit().expect("the second gives way");
        assert!(!first.evicted.is_cancelled() && second.evicted.is_cancelled());
        let other = Busy::new(&third.busy);
        assert!(connections.admit().is_none(), "nobody is idle");
        let receiving = Busy::new(&third.receiving);
        let instead = connections.admit().expect("what is still coming gives way");
        assert!(!first.evicted.is_cancelled() && third.evicted.is_cancelled());
        let third = instead;
        let other = (other, Busy::new(&third.busy), receiving);
        drop((busy, second));
        let fourth = connections.admit().expect("the first is idle");
        assert!(first.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop((first, third, fourth, other));
        assert!(lock(&connections.all).open.is_empty());
    }
}
