//! The core's events as lines of the log.

use starling_proto::Event;

/// By this the extension says that a transaction belongs to another history than is held here.
const FORKED: &str = "starling: forked history";

/// Writes one line.
pub fn event(event: &Event) {
    match event {
        Event::MemberUp { site, addr } => tracing::info!(%site, %addr, "member up"),
        Event::MemberSuspect { site, addr } => tracing::info!(%site, %addr, "member suspect"),
        Event::MemberDown { site, addr } => tracing::info!(%site, %addr, "member down"),
        Event::MemberRenewed { site, from, to } => tracing::info!(%site, %from, %to, "member restarted or moved"),
        Event::Rejoined { incarnation } => {
            tracing::warn!(incarnation, "the cluster took this node for dead; it is back")
        }
        Event::Alone => tracing::info!("no other member is reachable"),
        Event::PeerReady { peer, addr } => tracing::info!(%peer, %addr, "connected"),
        Event::PeerGone { peer, why } => tracing::info!(%peer, why, "disconnected"),
        Event::Refused { peer, reason } => tracing::warn!(%peer, %reason, "connection closed"),
        Event::DialFailed { addr, why } => tracing::info!(%addr, why, "cannot be reached; trying again"),
        Event::OwnSiteSeen { addr } => tracing::debug!(%addr, "this node's own site id answers there"),
        Event::Clone { addr, incarnation } => tracing::error!(
            %addr,
            incarnation,
            "another node runs with this database's site id: a copy of the database, or a second sidecar"
        ),
        Event::Advertised { addr } => tracing::info!(%addr, "others are told to dial"),
        Event::PullStarted { pull, from } => tracing::debug!(pull = pull.0, %from, "pull started"),
        Event::PullDone { pull, from, changesets, changes } => {
            tracing::debug!(pull = pull.0, %from, changesets, changes, "pull done");
        }
        Event::PullFailed { pull, from, why } => tracing::info!(pull = pull.0, %from, why, "pull failed; trying again"),
        // Each of a site's transactions may say so, until that is settled; `Fork` has said it once.
        Event::MergeFailed { dot, why } if why.contains(FORKED) => {
            tracing::debug!(site = %dot.origin.site, version = dot.version, why, "waits for numbers used twice to be told apart");
        }
        Event::MergeFailed { dot, why } => {
            tracing::error!(site = %dot.origin.site, version = dot.version, why, "a transaction could not be merged");
        }
        Event::Fork { peer, own, origin, version } => tracing::error!(
            %peer,
            own,
            site = %origin.site,
            epoch = %format_args!("{:016x}", origin.epoch),
            version,
            "one version number was used for two transactions (lost commits, a restored backup); both are kept"
        ),
        Event::LostCommits { peer, origin, held, known } => tracing::error!(
            %peer,
            epoch = %format_args!("{:016x}", origin.epoch),
            held,
            known,
            "peers hold commits of this node that it has lost itself; it takes them back and goes on in a new epoch"
        ),
        Event::StoreBehind { unmerged_bytes } => {
            tracing::warn!(unmerged_bytes, "the database cannot keep up; what is dropped is pulled later");
        }
        Event::Overslept { late_us } => tracing::warn!(late_ms = late_us / 1000, "this process was not run in time"),
        Event::Left => tracing::info!("left the cluster"),
    }
}
