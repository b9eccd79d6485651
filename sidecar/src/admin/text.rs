//! `starling status` for people.

use super::Status;
use std::fmt::Write;

/// The status as text.
#[must_use]
pub fn human(status: &Status) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "site      {}", status.site_id);
    let _ = writeln!(out, "version   {}", status.db_version);
    let _ = writeln!(out, "cluster   {}", status.cluster_id);
    let _ = writeln!(out, "listening {} (as {}), http {}", status.listen, status.advertise, status.http);
    if status.aside > 0 {
        let _ = writeln!(out, "aside     {} parts wait for tables or columns that are not here", status.aside);
    }
    if let Some(trouble) = &status.store.trouble {
        let _ = writeln!(out, "trouble   {trouble}");
    }
    let _ = writeln!(out, "\nmembers");
    for member in &status.members {
        let rtt = match member.rtt_ms {
            Some(rtt) => format!("{rtt:.1} ms"),
            None if member.is_self => "this node".into(),
            None if member.connected => "connected".into(),
            None => String::new(),
        };
        let _ = writeln!(out, "  {}  {:<8} {:<24} {rtt}", member.site_id, member.state, member.addr);
    }
    let _ = writeln!(out, "\nheld");
    for site in &status.sites {
        let missing = match site.missing.as_slice() {
            [] => String::new(),
            missing => format!("  missing {} for {} ms", ranges(missing), site.lag_ms),
        };
        let _ = writeln!(out, "  {}  {}{missing}", site.site_id, ranges(&site.held));
    }
    out
}

fn ranges(ranges: &[(u64, u64)]) -> String {
    let mut texts: Vec<String> =
        ranges.iter().take(8).map(|(lo, hi)| if lo == hi { lo.to_string() } else { format!("{lo}-{hi}") }).collect();
    if ranges.len() > 8 {
        texts.push(format!("and {} more", ranges.len() - 8));
    }
    texts.join(", ")
}
