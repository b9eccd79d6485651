//! What the node says of itself.

use super::Driver;
use crate::admin::{EpochStatus, MemberStatus, SiteStatus, Status, StoreStatus};
use starling_crdt::{RangeSet, SiteId};
use starling_proto::{Counters, OriginStatus};
use std::collections::BTreeMap;

impl Driver {
    pub(super) fn status(&self) -> Status {
        let (now, report) = (self.now(), self.edges.writer.report());
        Status {
            site_id: self.facts.site.to_string(),
            db_version: self.figures.db_version,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: self.facts.cluster_id.to_string(),
            pid: std::process::id(),
            uptime_ms: now.0 / 1000,
            listen: self.facts.listen.to_string(),
            advertise: self.node.advertised().to_string(),
            http: self.facts.http.to_string(),
            aside: self.figures.aside,
            members: self.members(),
            sites: sites(self.node.status(now)),
            store: StoreStatus {
                waiting: report.waiting as u64,
                commits: report.commits,
                merged: report.merged,
                trouble: report.trouble,
            },
            counters: counters(&self.node.counters()),
        }
    }

    fn members(&self) -> Vec<MemberStatus> {
        let me = MemberStatus {
            site_id: self.facts.site.to_string(),
            addr: self.node.advertised().to_string(),
            state: "alive".to_owned(),
            is_self: true,
            connected: false,
            link: false,
            rtt_ms: None,
        };
        let others = self.node.members().into_iter().map(|member| MemberStatus {
            site_id: member.site.to_string(),
            addr: member.addr.to_string(),
            state: member.state.to_string(),
            is_self: false,
            connected: member.connected,
            link: member.link,
            #[allow(clippy::cast_precision_loss, reason = "round-trip times are far below 2^53 microseconds")]
            rtt_ms: member.rtt_us.map(|us| us as f64 / 1000.0),
        });
        std::iter::once(me).chain(others).collect()
    }
}

/// By site, all its epochs together: version numbers go on from one epoch to the next.
fn sites(origins: Vec<OriginStatus>) -> Vec<SiteStatus> {
    let mut by_site: BTreeMap<SiteId, (RangeSet, RangeSet, SiteStatus)> = BTreeMap::new();
    for origin in origins {
        let (held, missing, site) = by_site.entry(origin.origin.site).or_default();
        held.union(&origin.held);
        missing.union(&origin.missing);
        let lag_ms = origin.missing_for_us.div_ceil(1000);
        site.lag_ms = site.lag_ms.max(lag_ms);
        site.epochs.push(EpochStatus {
            epoch: format!("{:016x}", origin.origin.epoch),
            held: origin.held.ranges().to_vec(),
            missing: origin.missing.ranges().to_vec(),
            lag_ms,
            carried: origin.carried,
            newest_commit_ms: origin.newest_commit_ms,
        });
    }
    by_site
        .into_iter()
        .map(|(id, (held, missing, site))| SiteStatus {
            site_id: id.to_string(),
            held: held.ranges().to_vec(),
            missing: missing.ranges().to_vec(),
            ..site
        })
        .collect()
}

fn counters(c: &Counters) -> BTreeMap<String, u64> {
    let named = [
        ("frames_out", c.frames_out),
        ("frames_in", c.frames_in),
        ("frames_refused", c.frames_refused),
        ("datagrams_out", c.datagrams_out),
        ("datagrams_refused", c.datagrams_refused),
        ("pushes_out", c.pushes_out),
        ("pushes_in", c.pushes_in),
        ("pushes_duplicate", c.pushes_duplicate),
        ("pushes_dropped", c.pushes_dropped),
        ("grafts_out", c.grafts_out),
        ("prunes_out", c.prunes_out),
        ("pulls", c.pulls),
        ("pulls_failed", c.pulls_failed),
        ("serves", c.serves),
        ("serves_refused", c.serves_refused),
        ("merges_failed", c.merges_failed),
    ];
    named.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_crdt::Origin;

    #[test]
    fn the_epochs_of_a_site_are_shown_apart_and_together() {
        let origin = |epoch, held: (u64, u64), missing: (u64, u64), missing_for_us| OriginStatus {
            origin: Origin { site: SiteId([1; 16]), epoch },
            held: RangeSet::from_range(held.0, held.1),
            missing: RangeSet::from_range(missing.0, missing.1),
            missing_for_us,
            carried: 0,
            newest_commit_ms: 0,
        };
        let sites = sites(vec![origin(7, (1, 5), (1, 0), 0), origin(9, (6, 8), (9, 10), 1_500)]);
        assert_eq!(sites.len(), 1);
        let site = &sites[0];
        assert_eq!((site.held.as_slice(), site.missing.as_slice()), (&[(1, 8)][..], &[(9, 10)][..]));
        assert_eq!((site.lag_ms, site.epochs.len()), (2, 2));
        assert_eq!(site.epochs[1].epoch, "0000000000000009");
    }
}
