//! What callers may do at a time, so that nobody takes from others.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::ConnectInfo,
    http::{HeaderName, request::Parts},
};
use status_core::OwnerId;

use crate::Problem;

/// The bounds of one process: whoever asks for more is told 429 and when to try again.
///
/// Streams and requests are counted in this process; with several behind a balancer, each has its own bounds. Open jobs are
/// counted in the store; requests that come at the same moment may exceed their bound by as many.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Jobs of one owner that are not over. 64.
    pub open_jobs: usize,
    /// Streams of events and long-polls of one owner. 64.
    pub streams: usize,
    /// Requests of one owner that are not answered yet, waiting ones included. 256.
    pub requests: usize,
    /// The same of everybody; beyond it the answer is 503. 1,000.
    pub all_requests: usize,
    /// Jobs a minute that are created from one address by callers without an identity (see [`Stranger`]): each is a new
    /// owner, for whom the other bounds begin anew. An IPv6 address stands for its /64. 60, which may come at once.
    pub strangers_per_minute: u32,
    /// The header by which a proxy in front says where a request came from, such as `x-forwarded-for`: its last address
    /// counts. Without, the address is that of the connection, as axum's [`ConnectInfo`] has it.
    ///
    /// Set it only if every request comes through that proxy: anybody else can put anything into it.
    pub peer_header: Option<HeaderName>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_jobs: 64,
            streams: 64,
            requests: 256,
            all_requests: 1_000,
            strangers_per_minute: 60,
            peer_header: None,
        }
    }
}

/// Put this into a request's extensions where its caller came without an identity and was given a new one.
#[derive(Clone, Copy, Debug)]
pub struct Stranger;

/// How many of what there are now.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    streams: Counted<OwnerId>,
    requests: Counted<OwnerId>,
    all_requests: Counted<()>,
    strangers: Arc<Mutex<Arrivals>>,
}

impl Usage {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            streams: Counted::new(limits.streams),
            requests: Counted::new(limits.requests),
            all_requests: Counted::new(limits.all_requests),
            strangers: Arc::new(Mutex::new(Arrivals::new(limits.strangers_per_minute))),
        }
    }

    /// A request's places, until they are dropped.
    pub(crate) fn request(&self, owner: &OwnerId) -> Result<(Place<OwnerId>, Place<()>), Problem> {
        let of_one = self.requests.enter(owner.clone());
        let of_one = of_one.ok_or_else(|| Problem::too_many("Too many requests at once.", SOON))?;
        let of_all = self.all_requests.enter(()).ok_or_else(Problem::unavailable)?;
        Ok((of_one, of_all))
    }

    /// A stream's place, until it is dropped.
    pub(crate) fn stream(&self, owner: &OwnerId) -> Result<Place<OwnerId>, Problem> {
        let place = self.streams.enter(owner.clone());
        place.ok_or_else(|| Problem::too_many("Too many pages are watching. Close some of them.", SOON))
    }

    /// Counts a job that a stranger creates.
    pub(crate) fn stranger(&self, peer: Option<IpAddr>) -> Result<(), Problem> {
        let arrived = lock(&self.strangers).arrive(peer, Instant::now());
        arrived.map_err(|wait| Problem::too_many("Too many new visitors come from your network.", wait))
    }
}

const SOON: Duration = Duration::from_secs(2);

/// Where a request came from.
pub(crate) fn peer(parts: &Parts, header: Option<&HeaderName>) -> Option<IpAddr> {
    let Some(header) = header else {
        return parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    };
    // The proxy's own word comes last.
    let last = parts.headers.get_all(header).iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
    last.parse().or_else(|_| last.parse::<SocketAddr>().map(|address| address.ip())).ok()
}

/// Bounded numbers of something, by whose it is.
#[derive(Debug)]
struct Counted<K> {
    now: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

impl<K> Clone for Counted<K> {
    fn clone(&self) -> Self {
        Self { now: self.now.clone(), most: self.most }
    }
}

impl<K: Clone + Eq + Hash> Counted<K> {
    fn new(most: usize) -> Self {
        Self { now: Arc::default(), most }
    }

    fn enter(&self, whose: K) -> Option<Place<K>> {
        let mut now = lock(&self.now);
        let count = now.get(&whose).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        now.insert(whose.clone(), count + 1);
        Some(Place { among: self.now.clone(), whose })
    }
}

/// One of a bounded number, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    among: Arc<Mutex<HashMap<K, usize>>>,
    whose: K,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut now = lock(&self.among);
        if let Some(count) = now.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                now.remove(&self.whose);
            }
        }
    }
}

/// Who arrived from where: the generic cell rate algorithm (ITU-T I.371), which keeps one moment for each.
#[derive(Debug)]
struct Arrivals {
    /// When the next one would come if all came evenly.
    expected: HashMap<u128, Instant>,
    apart: Duration,
    at_once: Duration,
}

/// The most addresses that are known apart.
const MAX_PEERS: usize = 10_000;
/// The key of all the others.
const OTHERS: u128 = 0;

impl Arrivals {
    fn new(a_minute: u32) -> Self {
        let minute = Duration::from_secs(60);
        Self { expected: HashMap::new(), apart: minute / a_minute.max(1), at_once: minute }
    }

    /// An error says how long to wait.
    fn arrive(&mut self, peer: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let mut key = peer.map_or(OTHERS, network);
        if self.expected.len() >= MAX_PEERS && !self.expected.contains_key(&key) {
            self.expected.retain(|_, expected| *expected > now);
            if self.expected.len() >= MAX_PEERS {
                key = OTHERS;
            }
        }
        let expected = self.expected.get(&key).copied().unwrap_or(now).max(now);
        let early = expected + self.apart - now;
        if early > self.at_once {
            return Err(early - self.at_once);
        }
        self.expected.insert(key, expected + self.apart);
        Ok(())
    }
}

/// What one subscriber usually has.
fn network(peer: IpAddr) -> u128 {
    match peer.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_one_network_come_at_a_bounded_rate_and_others_beside_them() {
        let (mut arrivals, now) = (Arrivals::new(60), Instant::now());
        let one: IpAddr = "2001:db8::1".parse().expect("an address");
        let neighbour: IpAddr = "2001:db8::ffff".parse().expect("an address");
        let other: IpAddr = "2001:db8:0:1::1".parse().expect("an address");
        for _ in 0..30 {
            assert_eq!(
                (arrivals.arrive(Some(one), now), arrivals.arrive(Some(neighbour), now)),
                (Ok(()), Ok(()))
            );
        }
        assert_eq!(arrivals.arrive(Some(one), now), Err(Duration::from_secs(1)));
        assert_eq!(arrivals.arrive(Some(other), now), Ok(()));
        let later = now + Duration::from_secs(2);
        assert_eq!([(); 3].map(|()| arrivals.arrive(Some(one), later).is_ok()), [true, true, false]);
        for address in 0..100_000_u32 {
            let _ = arrivals.arrive(Some(IpAddr::from(address.to_be_bytes())), later);
        }
        assert!(arrivals.expected.len() <= MAX_PEERS + 1, "{}", arrivals.expected.len());
    }

    #[test]
    fn the_last_address_of_the_proxy_counts_and_only_if_there_is_one() {
        let header = HeaderName::from_static("x-forwarded-for");
        let request =
            axum::http::Request::builder().header(&header, "6.6.6.6").header(&header, "7.7.7.7, 192.0.2.1");
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        assert_eq!(peer(&parts, Some(&header)), Some("192.0.2.1".parse().expect("an address")));
        assert_eq!(peer(&parts, None), None);
        parts.extensions.insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 80))));
        assert_eq!(peer(&parts, None), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
