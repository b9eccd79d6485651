//! From parts to units of work: changesets are put together here, so that all parts of one are merged in one transaction.
//!
//! Parts of an unfinished changeset are held in memory up to a cap and go to an unnamed temporary file beyond it. A small answer
//! is held until its vector is there and becomes one unit, so that nobody reads a state between.

use crate::limits::{ASSEMBLY_MEMORY, SMALL_ANSWER};
use bytes::Bytes;
use starling_crdt::changeset::{DotHeader, Header};
use starling_crdt::Vector;
use starling_proto::limits::MAX_SYNC_MESSAGE;
use starling_proto::{PullKey, Source};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::PathBuf;

/// Whatever must live as long as the bytes of a part are in memory.
pub type Window = Option<Box<dyn Send>>;

/// A part and its share of a window.
pub struct Piece {
    /// The part.
    pub bytes: Bytes,
    /// Its share, given back when the piece is dropped.
    _window: Window,
}

/// The parts of a changeset.
pub enum Body {
    /// In memory.
    Memory(Vec<Piece>),
    /// In an unnamed file, each with its length before it.
    Spooled(BufWriter<File>),
    /// They could not be kept.
    Lost(String),
}

/// A changeset of which all parts are there.
pub struct Ready {
    /// Its dot's header.
    pub header: DotHeader,
    /// Whether the store claims it after the merge.
    pub claimable: bool,
    /// Its parts.
    pub body: Body,
}

/// What is merged in one transaction, in full or not at all.
pub struct Unit {
    /// Where it comes from.
    pub source: Source,
    /// The changesets.
    pub changesets: Vec<Ready>,
    /// The vector to claim after them.
    pub claim: Option<Vector>,
}

struct Partial {
    header: Header,
    next_part: u64,
    memory: usize,
    body: Body,
}

#[derive(Default)]
struct Held {
    changesets: Vec<Ready>,
    bytes: usize,
    /// Too large to be held: its changesets are merged as they come.
    flowing: bool,
}

/// What came of a part.
pub enum Taken {
    /// More parts are to come, or it is held.
    Nothing,
    /// Work to be done.
    Units(Vec<Unit>),
    /// The parts do not fit together: nothing of this changeset is merged.
    Misfit(DotHeader),
}

/// Puts changesets together.
pub struct Assembly {
    spool_dir: PathBuf,
    partial: BTreeMap<Source, Partial>,
    held: BTreeMap<PullKey, Held>,
}

impl Assembly {
    /// An empty one; `spool_dir` is where temporary files are made.
    pub const fn new(spool_dir: PathBuf) -> Self {
        Self { spool_dir, partial: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// Takes the next part of a source.
    pub fn part(&mut self, source: Source, header: &Header, bytes: Bytes, window: Window) -> Taken {
        let mut partial = match self.partial.remove(&source) {
            Some(partial) if header.part != 0 => partial,
            // A first part while another changeset is unfinished: the source gave that one up.
            _ => Partial { header: *header, next_part: 0, memory: 0, body: Body::Memory(Vec::new()) },
        };
        let fits = partial.header.dot == header.dot && partial.next_part == header.part;
        if !fits || partial.header.claimable != header.claimable {
            return Taken::Misfit(header.dot);
        }
        partial.next_part += 1;
        partial.memory += bytes.len();
        let size = partial.memory;
        partial.body = match partial.body {
            Body::Memory(mut pieces) => {
                pieces.push(Piece { bytes, _window: window });
                if size > ASSEMBLY_MEMORY && !header.last {
                    self.spool(&pieces)
                } else {
                    Body::Memory(pieces)
                }
            }
            Body::Spooled(mut file) => match append(&mut file, &bytes) {
                Ok(()) => Body::Spooled(file),
                Err(e) => Body::Lost(cannot_spool(&e)),
            },
            lost @ Body::Lost(_) => lost,
        };
        if !header.last {
            self.partial.insert(source, partial);
            return Taken::Nothing;
        }
        self.ready(source, Ready { header: header.dot, claimable: header.claimable, body: partial.body }, size)
    }

    fn ready(&mut self, source: Source, ready: Ready, size: usize) -> Taken {
        let Source::Sync { pull } = source else { return Taken::Units(vec![single(source, ready)]) };
        let held = self.held.entry(pull).or_default();
        if held.flowing {
            return Taken::Units(vec![single(source, ready)]);
        }
        held.changesets.push(ready);
        held.bytes += size;
        if held.bytes <= SMALL_ANSWER {
            return Taken::Nothing;
        }
        held.flowing = true;
        Taken::Units(held.changesets.drain(..).map(|ready| single(source, ready)).collect())
    }

    /// The answer is complete: what is held of it and its claim are one unit.
    pub fn finish(&mut self, pull: PullKey, vector: Vector) -> Unit {
        let source = Source::Sync { pull };
        self.partial.remove(&source);
        let changesets = self.held.remove(&pull).map(|held| held.changesets).unwrap_or_default();
        Unit { source, changesets, claim: Some(vector) }
    }

    /// Nothing more comes from this source: an unfinished changeset is dropped, finished ones are good.
    pub fn abandon(&mut self, source: Source) -> Vec<Unit> {
        self.partial.remove(&source);
        let Source::Sync { pull } = source else { return Vec::new() };
        let held = self.held.remove(&pull).map(|held| held.changesets).unwrap_or_default();
        held.into_iter().map(|ready| single(source, ready)).collect()
    }

    fn spool(&self, pieces: &[Piece]) -> Body {
        let spooled = tempfile::tempfile_in(&self.spool_dir).and_then(|file| {
            let mut file = BufWriter::with_capacity(256 * 1024, file);
            pieces.iter().try_for_each(|piece| append(&mut file, &piece.bytes))?;
            Ok(file)
        });
        spooled.map_or_else(|e| Body::Lost(cannot_spool(&e)), Body::Spooled)
    }
}

fn single(source: Source, ready: Ready) -> Unit {
    Unit { source, changesets: vec![ready], claim: None }
}

fn cannot_spool(e: &io::Error) -> String {
    format!("a large transaction could not be kept in a temporary file: {e}")
}

fn append(file: &mut BufWriter<File>, bytes: &[u8]) -> io::Result<()> {
    file.write_all(&(bytes.len() as u64).to_le_bytes())?;
    file.write_all(bytes)
}

impl Body {
    /// Calls `each` with every part in order. May be called again.
    ///
    /// # Errors
    /// What `each` gives, or why the parts cannot be read.
    pub fn for_each<E>(
        &mut self,
        lost: impl Fn(String) -> E,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Memory(pieces) => pieces.iter().try_for_each(|piece| each(&piece.bytes)),
            Self::Lost(why) => Err(lost(why.clone())),
            Self::Spooled(writer) => {
                writer.flush().and_then(|()| writer.get_mut().rewind()).map_err(|e| lost(cannot_spool(&e)))?;
                let mut file = BufReader::with_capacity(256 * 1024, writer.get_mut());
                while let Some(part) = read_part(&mut file).map_err(|e| lost(cannot_spool(&e)))? {
                    each(&part)?;
                }
                Ok(())
            }
        }
    }
}

fn read_part(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0u8; 8];
    match file.read(&mut len[..1])? {
        0 => return Ok(None),
        _ => file.read_exact(&mut len[1..])?,
    }
    let len = usize::try_from(u64::from_le_bytes(len)).map_err(|_| io::ErrorKind::InvalidData)?;
    if len > MAX_SYNC_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut part = vec![0u8; len];
    file.read_exact(&mut part)?;
    Ok(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_crdt::{Dot, Origin, SiteId};

    const PUSH: Source = Source::Push { from: SiteId([1; 16]) };
    const PULL: Source = Source::Sync { pull: PullKey(7) };

    fn header(version: u64, part: u64, last: bool) -> Header {
        let dot = Dot { origin: Origin { site: SiteId([1; 16]), epoch: 1 }, version };
        let dot = DotHeader { dot, token: 1, prev: version - 1, prev_token: 0, commit_ms: 0 };
        Header { dot, claimable: true, last, group: false, part }
    }

    fn assembly() -> Assembly {
        Assembly::new(std::env::temp_dir())
    }

    fn parts(unit: &mut Unit) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        for ready in &mut unit.changesets {
            ready
                .body
                .for_each(
                    |why| why,
                    |part| {
                        seen.push(part.to_vec());
                        Ok(())
                    },
                )
                .unwrap();
        }
        seen
    }

    fn units(taken: Taken) -> Vec<Unit> {
        match taken {
            Taken::Units(units) => units,
            Taken::Nothing => Vec::new(),
            Taken::Misfit(dot) => panic!("misfit {dot:?}"),
        }
    }

    #[test]
    fn a_pushed_changeset_is_work_once_its_last_part_is_there() {
        let mut a = assembly();
        assert!(units(a.part(PUSH, &header(1, 0, false), Bytes::from_static(b"a"), None)).is_empty());
        let mut done = units(a.part(PUSH, &header(1, 1, true), Bytes::from_static(b"b"), None));
        assert_eq!(done.len(), 1);
        assert_eq!(parts(&mut done[0]), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(parts(&mut done[0]).len(), 2, "it can be read again");
    }

    #[test]
    fn parts_that_do_not_fit_together_are_no_changeset() {
        for (second, what) in [(header(1, 2, true), "a gap"), (header(2, 1, true), "another dot")] {
            let mut a = assembly();
            a.part(PUSH, &header(1, 0, false), Bytes::from_static(b"a"), None);
            assert!(matches!(a.part(PUSH, &second, Bytes::new(), None), Taken::Misfit(_)), "{what}");
        }
        assert!(matches!(assembly().part(PUSH, &header(1, 1, true), Bytes::new(), None), Taken::Misfit(_)));
        let mut a = assembly();
        a.part(PUSH, &header(1, 0, false), Bytes::from_static(b"a"), None);
        assert_eq!(units(a.part(PUSH, &header(2, 0, true), Bytes::from_static(b"c"), None)).len(), 1, "it began anew");
    }

    #[test]
    fn a_large_changeset_goes_to_a_file_and_gives_its_window_back() {
        let mut a = assembly();
        let part = Bytes::from(vec![9u8; ASSEMBLY_MEMORY / 4]);
        let alive = std::sync::Arc::new(());
        for i in 0..8 {
            let window: Window = Some(Box::new(std::sync::Arc::clone(&alive)));
            assert!(units(a.part(PULL, &header(1, i, false), part.clone(), window)).is_empty());
        }
        assert_eq!(std::sync::Arc::strong_count(&alive), 1, "nothing is in memory any more");
        let mut done = units(a.part(PULL, &header(1, 8, true), Bytes::from_static(b"end"), None));
        let read = parts(&mut done[0]);
        assert_eq!((read.len(), read[0].len(), read[8].as_slice()), (9, part.len(), &b"end"[..]));
        assert_eq!(parts(&mut done[0]).len(), 9, "it can be read again");
    }

    #[test]
    fn a_small_answer_is_one_unit_with_its_claim() {
        let mut a = assembly();
        for version in 1..=3 {
            assert!(units(a.part(PULL, &header(version, 0, true), Bytes::from_static(b"x"), None)).is_empty());
        }
        let unit = a.finish(PullKey(7), Vector::default());
        assert_eq!((unit.changesets.len(), unit.claim.is_some()), (3, true));
    }

    #[test]
    fn a_large_answer_flows_and_its_claim_comes_last() {
        let mut a = assembly();
        let part = Bytes::from(vec![0u8; SMALL_ANSWER / 2]);
        let mut flowed = 0;
        for version in 1..=5 {
            flowed += units(a.part(PULL, &header(version, 0, true), part.clone(), None)).len();
        }
        assert_eq!(flowed, 5);
        let unit = a.finish(PullKey(7), Vector::default());
        assert_eq!((unit.changesets.len(), unit.claim.is_some()), (0, true));
    }

    #[test]
    fn a_broken_off_answer_leaves_its_whole_changesets_and_claims_nothing() {
        let mut a = assembly();
        a.part(PULL, &header(1, 0, true), Bytes::from_static(b"x"), None);
        a.part(PULL, &header(2, 0, false), Bytes::from_static(b"y"), None);
        let units = a.abandon(PULL);
        assert_eq!(units.len(), 1);
        assert!(units[0].claim.is_none());
        assert!(a.abandon(PULL).is_empty());
    }
}
