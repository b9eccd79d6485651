//! Reading what applications committed out of the log, and handing it on in batches.

use crate::db::state::Shipped;
use crate::db::StoreEvent;
use crate::limits::{LOCAL_BATCH, LOCAL_BATCH_BYTES, MAX_PUSH_BYTES};
use bytes::Bytes;
use rusqlite::Connection;
use starling_crdt::changeset::{Header, PartReader};
use starling_proto::limits::MAX_PUSH_PARTS;
use starling_proto::Changeset;
use tokio::sync::mpsc;

const LOCAL: &str = include_str!("../../../../sql/sidecar/local.sql");

/// Local changesets on their way to the driver.
pub(super) struct Batches<'w> {
    pub(super) events: &'w mpsc::Sender<StoreEvent>,
    pub(super) shipped: &'w mut Option<Shipped>,
    pub(super) any: bool,
}

/// A local changeset whose parts are being read.
struct Gathering {
    header: Header,
    parts: Vec<Bytes>,
    bytes: usize,
    pushable: bool,
}

impl Gathering {
    const fn new(header: Header) -> Self {
        Self { header, parts: Vec::new(), bytes: 0, pushable: header.claimable }
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes += part.len();
        self.pushable &= self.bytes <= MAX_PUSH_BYTES && self.parts.len() < MAX_PUSH_PARTS;
        if self.pushable {
            self.parts.push(Bytes::copy_from_slice(part));
        } else {
            self.parts.clear();
        }
    }
}

/// Reads what applications committed after the log record `after`; whether there was anything.
pub(super) fn read_local(conn: &Connection, after: u64, mut batches: Batches<'_>) -> Result<bool, String> {
    let text = |e: rusqlite::Error| e.to_string();
    let mut statement = conn.prepare_cached(LOCAL).map_err(text)?;
    let mut rows = statement.query([i64::try_from(after).unwrap_or(i64::MAX)]).map_err(text)?;
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    let mut open: Option<Gathering> = None;
    while let Some(row) = rows.next().map_err(text)? {
        let part = row.get_ref(0).and_then(|v| Ok(v.as_blob()?)).map_err(text)?;
        let header = *PartReader::new(part).map_err(|e| e.to_string())?.header();
        let mut gathering = match open.take() {
            Some(gathering) if header.part != 0 => gathering,
            _ => Gathering::new(header),
        };
        gathering.push(part);
        if !header.last {
            open = Some(gathering);
            continue;
        }
        batch_bytes += gathering.bytes;
        batches.add(gathering, &mut batch);
        if batch.len() >= LOCAL_BATCH || batch_bytes >= LOCAL_BATCH_BYTES {
            batches.send(&mut batch);
            batch_bytes = 0;
        }
    }
    batches.send(&mut batch);
    Ok(batches.any)
}

impl Batches<'_> {
    fn add(&mut self, gathering: Gathering, batch: &mut Vec<Changeset>) {
        self.any = true;
        let dot = gathering.header.dot;
        *self.shipped = Some(Shipped { epoch: dot.dot.origin.epoch, version: dot.dot.version, token: dot.token });
        if gathering.pushable {
            batch.push(Changeset { header: gathering.header, parts: gathering.parts });
        } else {
            self.send(batch);
            let _ = self.events.blocking_send(StoreEvent::Announce(gathering.header));
        }
    }

    fn send(&self, batch: &mut Vec<Changeset>) {
        if !batch.is_empty() {
            let _ = self.events.blocking_send(StoreEvent::Local(std::mem::take(batch)));
        }
    }
}
