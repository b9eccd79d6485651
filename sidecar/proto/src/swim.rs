//! Membership: foca (SWIM with suspicion) behind a face that knows time.
//!
//! foca asks for timers as durations; they are kept here, ordered by moment and by the order in which they were asked for.
//! It never sees a packet whose source is not the peer that the connection's certificate names.

use crate::api::{MemberState, NodeConfig, Now, Timing};
use crate::limits::MAX_DATAGRAM;
use crate::swim_codec::SwimCodec;
use bytes::Bytes;
use foca::{
    Config, Foca, Identity, NoCustomBroadcast, Notification, OwnedNotification, PeriodicParams, Runtime, State, Timer,
};
use rand::rngs::StdRng;
use rand::SeedableRng;
use starling_crdt::SiteId;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// A process as SWIM knows it. A site is at one place at a time: the newest incarnation replaces any other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ident {
    /// The replica.
    pub(crate) site: SiteId,
    /// Boot time in milliseconds since 1970, raised by one at each rejoin and change of address.
    pub(crate) incarnation: u64,
    /// Where it is dialled.
    pub(crate) addr: SocketAddr,
}

impl Identity for Ident {
    type Addr = SiteId;

    fn renew(&self) -> Option<Self> {
        Some(Self { incarnation: self.incarnation.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> SiteId {
        self.site
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        let rank = |i: &Self| (i.incarnation, !i.addr.ip().is_unspecified(), i.addr);
        rank(self) > rank(adversary)
    }
}

/// What foca asked for during one call.
#[derive(Debug, Default)]
struct Asked {
    sends: VecDeque<(Ident, Bytes)>,
    timers: Vec<(Duration, Timer<Ident>)>,
    notes: VecDeque<OwnedNotification<Ident>>,
}

impl Runtime<Ident> for Asked {
    fn notify(&mut self, notification: Notification<'_, Ident>) {
        self.notes.push_back(notification.to_owned());
    }

    fn send_to(&mut self, to: Ident, data: &[u8]) {
        self.sends.push_back((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Ident>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// See the module.
pub(crate) struct Swim {
    foca: Foca<Ident, SwimCodec, StdRng, NoCustomBroadcast>,
    codec: SwimCodec,
    asked: Asked,
    timers: BTreeMap<(Now, u64), Timer<Ident>>,
    next_timer: u64,
    timing: Timing,
    sized_for: usize,
}

impl std::fmt::Debug for Swim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swim").field("ident", self.foca.identity()).field("timers", &self.timers.len()).finish()
    }
}

impl Swim {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        let ident = Ident { site: config.site_id, incarnation: config.incarnation, addr: config.advertise };
        let codec = SwimCodec::new(&config.cluster_id);
        let rng = StdRng::seed_from_u64(config.seed ^ u64::from_le_bytes(*b"starswim"));
        Self {
            foca: Foca::new(ident, foca_config(&config.timing, 1), rng, codec),
            codec,
            asked: Asked::default(),
            timers: BTreeMap::new(),
            next_timer: 0,
            timing: config.timing,
            sized_for: 1,
        }
    }

    /// This process as the others know it.
    pub(crate) fn ident(&self) -> &Ident {
        self.foca.identity()
    }

    /// A peer said hello: it is alive. `announce`: also ask it for the members it knows.
    pub(crate) fn hello(&mut self, now: Now, peer: Ident, announce: bool) {
        // foca's errors here can only be of its encoder, whose buffer is always large enough for a header.
        let _ = self.foca.apply_many(std::iter::once(foca::Member::alive(peer)), true, &mut self.asked);
        if announce {
            let _ = self.foca.announce(peer, &mut self.asked);
        }
        self.collect(now);
    }

    /// A peer said that it leaves.
    pub(crate) fn left(&mut self, now: Now, peer: Ident) {
        if let Some((known, _)) = self.known(&peer.site) {
            let _ = self.foca.apply_many(std::iter::once(foca::Member::down(known)), true, &mut self.asked);
            self.collect(now);
        }
    }

    /// A packet from the peer with this certificate. `false` when it was of no use.
    pub(crate) fn packet(&mut self, now: Now, from: SiteId, bytes: &[u8]) -> bool {
        if !self.codec.source(bytes).is_ok_and(|source| source.site == from) {
            return false;
        }
        let used = self.foca.handle_data(bytes, &mut self.asked).is_ok();
        self.collect(now);
        used
    }

    /// Another address: as a new incarnation, unless the old address was none at all and so known to nobody.
    pub(crate) fn readdress(&mut self, now: Now, addr: SocketAddr) {
        let old = *self.foca.identity();
        let raise = u64::from(!old.addr.ip().is_unspecified());
        let new = Ident { incarnation: old.incarnation.saturating_add(raise), addr, ..old };
        let _ = self.foca.change_identity(new, &mut self.asked);
        self.collect(now);
    }

    /// A later incarnation than `known`, which the cluster takes this site to have. `false` when this is one already.
    pub(crate) fn outrank(&mut self, now: Now, known: u64) -> bool {
        let old = *self.foca.identity();
        if old.incarnation > known {
            return false;
        }
        let new = Ident { incarnation: known.saturating_add(1), ..old };
        let _ = self.foca.change_identity(new, &mut self.asked);
        self.collect(now);
        true
    }

    /// What is known of a site.
    pub(crate) fn known(&self, site: &SiteId) -> Option<(Ident, MemberState)> {
        self.members().find(|(ident, _)| ident.site == *site).map(|(ident, state)| (*ident, state))
    }

    /// Says goodbye to a few members, who tell the rest.
    pub(crate) fn leave(&mut self, now: Now) {
        let _ = self.foca.leave_cluster(&mut self.asked);
        self.collect(now);
        self.timers.clear();
    }

    /// When [`Swim::tick`] has something to do.
    pub(crate) fn next(&self) -> Option<Now> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Fires what is due.
    pub(crate) fn tick(&mut self, now: Now) {
        while self.next().is_some_and(|at| at <= now) {
            if let Some((_, timer)) = self.timers.pop_first() {
                // A probe cycle that the driver's lateness left incomplete is an error to foca, which then begins anew.
                let _ = self.foca.handle_timer(timer, &mut self.asked);
                self.collect(now);
            }
        }
    }

    /// The driver slept: time did not pass for the pending probes and suspicions.
    pub(crate) fn shift(&mut self, micros: u64) {
        self.timers =
            std::mem::take(&mut self.timers).into_iter().map(|((at, n), t)| ((at.after(micros), n), t)).collect();
    }

    /// The next packet to send.
    pub(crate) fn poll_send(&mut self) -> Option<(Ident, Bytes)> {
        self.asked.sends.pop_front()
    }

    /// The next thing that happened.
    pub(crate) fn poll_note(&mut self) -> Option<OwnedNotification<Ident>> {
        self.asked.notes.pop_front()
    }

    /// Members that are alive or suspect, self not counted.
    pub(crate) fn active(&self) -> usize {
        self.foca.num_members()
    }

    /// All members known, down ones included, in foca's order.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Ident, MemberState)> {
        self.foca.iter_membership_state().map(|m| {
            let state = match m.state() {
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Down => MemberState::Down,
            };
            (m.id(), state)
        })
    }

    fn collect(&mut self, now: Now) {
        for (after, timer) in self.asked.timers.drain(..) {
            let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            self.timers.insert((now.after(micros), self.next_timer), timer);
            self.next_timer += 1;
        }
        let size = self.foca.num_members() + 1;
        if size != self.sized_for {
            // Only what may change at run time differs between two of these, so it is never refused.
            self.sized_for = size;
            let _ = self.foca.set_config(foca_config(&self.timing, size));
        }
    }
}

/// foca's settings for a cluster of `size`: how often an update is repeated and how long a suspect may refute grow with
/// the logarithm of the size, as in SWIM.
fn foca_config(timing: &Timing, size: usize) -> Config {
    let log2 = usize::BITS - size.max(2).leading_zeros();
    let transmissions = u8::try_from(2 + log2 * 2).unwrap_or(u8::MAX);
    let micros = Duration::from_micros;
    let every = |us: u64, members: usize| {
        Some(PeriodicParams {
            frequency: micros(us),
            num_members: NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN),
        })
    };
    Config {
        probe_period: micros(timing.probe_interval_us),
        probe_rtt: micros(timing.probe_rtt_us.min(timing.probe_interval_us / 2)),
        num_indirect_probes: NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN),
        max_transmissions: NonZeroU8::new(transmissions).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: micros(timing.suspicion_us.saturating_mul(u64::from(log2.max(4))) / 4),
        remove_down_after: Some(Duration::from_secs(24 * 60 * 60)),
        max_packet_size: NonZeroUsize::new(MAX_DATAGRAM).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: every(10_000_000, 1),
        periodic_announce_to_down_members: every(60_000_000, 2),
        periodic_gossip: every(timing.gossip_interval_us, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(n: u8) -> NodeConfig {
        NodeConfig {
            cluster_id: [9; 16],
            site_id: SiteId([n; 16]),
            incarnation: 100,
            advertise: SocketAddr::from(([10, 0, 0, n], 1)),
            seed: u64::from(n),
            timing: Timing::default(),
        }
    }

    #[test]
    fn a_hello_makes_a_member_and_a_newer_incarnation_replaces_it_wherever_it_is() {
        let mut swim = Swim::new(&config(1));
        let old = *Swim::new(&config(2)).ident();
        let moved = Ident { incarnation: 101, addr: SocketAddr::from(([10, 0, 0, 99], 1)), ..old };
        swim.hello(Now(0), old, true);
        swim.hello(Now(1), moved, false);
        swim.hello(Now(2), old, false);
        assert_eq!(swim.members().map(|(i, _)| *i).collect::<Vec<_>>(), [moved]);
    }

    #[test]
    fn a_packet_in_anothers_name_is_refused() {
        let (mut a, mut b) = (Swim::new(&config(1)), Swim::new(&config(2)));
        a.hello(Now(0), *b.ident(), true);
        let (to, bytes) = a.poll_send().unwrap();
        assert_eq!(to.site, SiteId([2; 16]));
        assert!(!b.packet(Now(1), SiteId([3; 16]), &bytes));
        assert!(b.packet(Now(1), SiteId([1; 16]), &bytes));
        assert_eq!(b.active(), 1);
    }

    #[test]
    fn the_first_address_learnt_keeps_the_incarnation_a_later_one_raises_it() {
        let mut swim = Swim::new(&NodeConfig { advertise: "0.0.0.0:7".parse().unwrap(), ..config(1) });
        swim.readdress(Now(0), "10.0.0.1:7".parse().unwrap());
        assert_eq!(swim.ident().incarnation, 100);
        swim.readdress(Now(0), "10.0.0.2:7".parse().unwrap());
        assert_eq!(swim.ident().incarnation, 101);
    }
}
