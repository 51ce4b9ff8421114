//! The write-ahead log as a crash has left it, looked at before SQLite does.
//!
//! SQLite reads a log up to the first frame that is not whole, which is where a crash cuts it, and
//! says nothing. It takes one whose header is not whole for empty. So that damage does not pass for
//! a crash, two things are told from it:
//!
//! - The header is written, and synced, before the first frame. When there are frames and no
//!   header, it is damaged.
//! - What was stored with a checkpoint has been synced before anything else is written. When a
//!   frame is not whole, and behind it there is a checkpoint, and behind that there is more, then
//!   the frame was whole once.
//!
//! Between two checkpoints a crash of the machine may leave any frames and lose others. That is
//! noted, and no reason to stay down. Frames that are left from before the log was begun anew have
//! another salt, and those of a transaction that was undone have no commit behind them.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use flux_protocol::rpc::content::Checkpoint;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The last bit says which end the words of a checksum begin with.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;
/// First byte of a page with rows and none below it.
const LEAF: u8 = 0x0d;
const BUFFER: usize = 1 << 20;

/// What is wrong with a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// There are frames behind what is no header.
    Header,
    /// What stands from here on was on the disk once, a checkpoint with it.
    Frames { from: u64 },
    /// As a crash of the machine, or damage, leaves it: transactions behind a gap.
    Gap { from: u64, lost: u64 },
}

type Checksum = (u32, u32);

/// Read a log that is not to be changed.
pub(super) fn check(log: &Path) -> std::io::Result<Option<Damage>> {
    let file = match File::open(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if file.metadata()?.len() <= HEADER as u64 {
        return Ok(None);
    }
    Log::read(BufReader::with_capacity(BUFFER, file))
}

struct Log {
    big_endian: bool,
    page_size: usize,
    salt: [u8; 8],
    checksum: Checksum,
}

/// Frames that are whole, behind one that is not.
#[derive(Default)]
struct Run {
    /// In the transaction that has begun.
    has_checkpoint: bool,
    /// One with a checkpoint has ended.
    is_synced: bool,
}

impl Log {
    fn read(mut input: impl Read) -> std::io::Result<Option<Damage>> {
        let mut header = [0; HEADER];
        input.read_exact(&mut header)?;
        let Some(log) = Log::from_header(&header) else { return Ok(Some(Damage::Header)) };
        let mut frame = vec![0; FRAME_HEADER + log.page_size];
        let mut before = log.checksum;
        let mut at = HEADER as u64;
        let mut gap = None;
        let mut lost = 0;
        let mut run = Run::default();
        while fill(&mut input, &mut frame)? {
            let is_whole = log.is_whole(before, &frame);
            before = (word(&frame, 16), word(&frame, 20));
            let Some(from) = gap else {
                gap = (!is_whole).then_some(at);
                at += frame.len() as u64;
                continue;
            };
            if !is_whole {
                run = Run::default();
                continue;
            }
            if run.is_synced {
                return Ok(Some(Damage::Frames { from }));
            }
            run.has_checkpoint |= frame
                .get(FRAME_HEADER..)
                .is_some_and(|page| has_checkpoints(page).unwrap_or(false));
            let is_commit = word(&frame, 4) != 0;
            if is_commit {
                lost += 1;
                run = Run { has_checkpoint: false, is_synced: run.has_checkpoint };
            }
        }
        Ok(gap.filter(|_| lost > 0).map(|from| Damage::Gap { from, lost }))
    }

    fn from_header(header: &[u8; HEADER]) -> Option<Log> {
        let magic = word(header, 0);
        let page_size = usize::try_from(word(header, 8)).ok()?;
        let [.., s0, s1, s2, s3, s4, s5, s6, s7, _, _, _, _, _, _, _, _] = *header;
        let log = Log {
            big_endian: magic & 1 == 1,
            page_size,
            salt: [s0, s1, s2, s3, s4, s5, s6, s7],
            checksum: (word(header, 24), word(header, 28)),
        };
        let is_valid = magic & !1 == MAGIC
            && word(header, 4) == VERSION
            && page_size.is_power_of_two()
            && (512..=65536).contains(&page_size)
            && log.sum((0, 0), header.get(..24)?) == log.checksum;
        is_valid.then_some(log)
    }

    fn is_whole(&self, before: Checksum, frame: &[u8]) -> bool {
        let (Some(start), Some(salt), Some(page)) =
            (frame.get(..8), frame.get(8..16), frame.get(FRAME_HEADER..))
        else {
            return false;
        };
        salt == self.salt
            && word(frame, 0) != 0
            && self.sum(self.sum(before, start), page) == (word(frame, 16), word(frame, 20))
    }

    fn sum(&self, (mut a, mut b): Checksum, bytes: &[u8]) -> Checksum {
        let read = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        for pair in bytes.as_chunks::<8>().0 {
            let [x0, x1, x2, x3, y0, y1, y2, y3] = *pair;
            a = a.wrapping_add(read([x0, x1, x2, x3])).wrapping_add(b);
            b = b.wrapping_add(read([y0, y1, y2, y3])).wrapping_add(a);
        }
        (a, b)
    }
}

/// False at the end, also where part of a frame stands there.
fn fill(input: &mut impl Read, frame: &mut [u8]) -> std::io::Result<bool> {
    match input.read_exact(frame) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

/// Whether all rows of a page are checkpoints, which no other table has.
fn has_checkpoints(page: &[u8]) -> Option<bool> {
    if *page.first()? != LEAF {
        return Some(false);
    }
    let half = |at: usize| {
        let bytes = page.get(at..)?.first_chunk::<2>()?;
        Some(usize::from(u16::from_be_bytes(*bytes)))
    };
    let count = half(3)?;
    for index in 0..count {
        let mut cell = page.get(half(8 + 2 * index)?..)?;
        let length = usize::try_from(varint(&mut cell)?).ok()?;
        varint(&mut cell)?; // its number
        let mut record = cell.get(..length)?;
        // Three bytes say: the number is not here, and how long the text is.
        let size = varint(&mut record)?;
        let (number, text) = (varint(&mut record)?, varint(&mut record)?);
        if size > 4 || number != 0 || text < 13 || text % 2 == 0 {
            return Some(false);
        }
        if serde_json::from_slice::<Checkpoint>(record).is_err() {
            return Some(false);
        }
    }
    Some(count > 0)
}

/// Seven bits a byte, the high ones first; longer than eight bytes none is here.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for _ in 0..8 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    four.map_or(0, |four| u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    const FRAME: usize = FRAME_HEADER + 4096;

    /// A log of 3 checkpoints, each with a blob before it; closing it would remove it.
    fn log(dir: &Path) -> (Connection, Vec<u8>) {
        let db = Connection::open(dir.join("db")).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        db.execute_batch(
            "CREATE TABLE objects(hash BLOB PRIMARY KEY, size INT, object BLOB);\
             CREATE TABLE checkpt_v2(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, value TEXT);",
        )
        .unwrap();
        for number in 0..3 {
            blob(&db, number);
            checkpoint(&db, number);
        }
        let bytes = std::fs::read(dir.join("db-wal")).unwrap();
        assert_eq!(bytes.len() % FRAME, HEADER);
        (db, bytes)
    }

    fn blob(db: &Connection, number: u32) {
        let blob = format!("blob {number}");
        db.execute("INSERT INTO objects VALUES (?1, -1, ?1)", [blob]).unwrap();
    }

    fn checkpoint(db: &Connection, number: u32) {
        let value = format!(
            r#"{{"version":1,"rootref":"sha1-{number}","sequence":{number},"timestamp":1.5}}"#
        );
        db.execute("INSERT INTO checkpt_v2 (value) VALUES (?1)", [value]).unwrap();
    }

    fn verdict(bytes: &[u8]) -> Option<Damage> {
        Log::read(bytes).unwrap()
    }

    fn damaged(bytes: &[u8], at: usize) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x40;
        bytes
    }

    fn place(frame: usize) -> usize {
        HEADER + frame * FRAME
    }

    #[test]
    fn a_log_without_its_header_is_damaged_whichever_byte_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (_db, log) = log(dir.path());
        assert_eq!(verdict(&log), None);
        for at in 0..HEADER {
            assert_eq!(verdict(&damaged(&log, at)), Some(Damage::Header), "byte {at}");
        }
    }

    #[test]
    fn a_log_that_a_crash_has_cut_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (_db, log) = log(dir.path());
        let file = dir.path().join("log");
        assert_eq!(check(&file).unwrap(), None);
        for length in [0, 1, HEADER - 1, HEADER, HEADER + 1, place(1), place(3) - 1, log.len() - 1]
        {
            std::fs::write(&file, &log[..length]).unwrap();
            assert_eq!(check(&file).unwrap(), None, "{length} bytes");
        }
        // The last frame may be there in part, in the length of a whole one.
        assert_eq!(verdict(&damaged(&log, log.len() - 1)), None);
    }

    #[test]
    fn frames_in_front_of_a_checkpoint_and_more_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (_db, log) = log(dir.path());
        for frame in 0..6 {
            for at in [0, 9, 17, FRAME_HEADER, FRAME - 1] {
                let damage = verdict(&damaged(&log, place(frame) + at));
                let from = place(frame) as u64;
                assert_eq!(damage, Some(Damage::Frames { from }), "frame {frame}, byte {at}");
            }
        }
    }

    #[test]
    fn what_a_crash_of_the_machine_may_leave_is_no_more_than_noted() {
        let dir = tempfile::tempdir().unwrap();
        let (db, log) = log(dir.path());
        // After the last checkpoint nothing is synced, nor is the next one before it is answered.
        let synced = log.len();
        for number in 10..14 {
            blob(&db, number);
        }
        checkpoint(&db, 14);
        let bytes = std::fs::read(dir.path().join("db-wal")).unwrap();
        let damage = verdict(&damaged(&bytes, synced + FRAME_HEADER));
        let Some(Damage::Gap { from, lost }) = damage else { panic!("{damage:?}") };
        assert_eq!(from, synced as u64);
        // Those behind the frame, and what is left of its own.
        assert_eq!(lost, 5);
    }

    #[test]
    fn frames_from_before_a_new_beginning_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (db, old) = log(dir.path());
        db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        blob(&db, 20);
        let new = std::fs::read(dir.path().join("db-wal")).unwrap();
        assert_eq!(new.len(), old.len());
        assert_ne!(new[..HEADER], old[..HEADER]);
        assert_eq!(verdict(&new), None);
    }

    #[test]
    fn frames_of_a_transaction_that_was_undone_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (db, before) = log(dir.path());
        db.pragma_update(None, "cache_size", 5).unwrap();
        db.pragma_update(None, "cache_spill", 5).unwrap();
        db.execute_batch("BEGIN").unwrap();
        for number in 0..100 {
            db.execute("INSERT INTO objects VALUES (?1, -1, zeroblob(5000))", [number]).unwrap();
        }
        db.execute_batch("ROLLBACK").unwrap();
        blob(&db, 30);
        let bytes = std::fs::read(dir.path().join("db-wal")).unwrap();
        assert!(bytes.len() > before.len() + 8 * FRAME, "nothing was spilled");
        assert_eq!(verdict(&bytes), None);
    }
}
