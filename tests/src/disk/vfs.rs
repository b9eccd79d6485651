//! The disk as SQLite sees it: a VFS whose files are in memory. The C side of [`super::State`], and nothing else.

#![allow(unsafe_code)] // a VFS is a table of C functions

use super::{disks, Change, State};
use rusqlite::ffi;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::sync::Once;

const NAME: &CStr = c"starling-disk";
/// Files without a name are on a disk of their own, which never fails.
const TEMPORARY: u64 = 0;

/// An open file. SQLite allocates it; it owns nothing.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    disk: u64,
    file: u64,
    temporary: bool,
}

/// The VFS's name, which is registered from then on.
pub fn name() -> &'static CStr {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS is there for the life of the process; ours is leaked, so it is too.
        let code = unsafe {
            let base = &*ffi::sqlite3_vfs_find(std::ptr::null());
            // Time, sleep and randomness are the machine's; those functions do not look at the VFS they are given.
            let own = ffi::sqlite3_vfs {
                iVersion: 2,
                szOsFile: size_of::<Handle>() as c_int,
                zName: NAME.as_ptr(),
                pNext: std::ptr::null_mut(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                xFullPathname: Some(full_path),
                ..*base
            };
            ffi::sqlite3_vfs_register(Box::leak(Box::new(own)), 0)
        };
        assert_eq!(code, ffi::SQLITE_OK);
    });
    NAME
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// "/7/a.db-wal" is a.db-wal on disk 7.
fn parse(path: &CStr) -> Option<(u64, &str)> {
    let (disk, name) = path.to_str().ok()?.strip_prefix('/')?.split_once('/')?;
    Some((disk.parse().ok()?, name))
}

/// Runs with the disk of an open file.
unsafe fn on<T>(file: *mut ffi::sqlite3_file, gone: T, f: impl FnOnce(&mut State, &Handle) -> T) -> T {
    // SAFETY: SQLite passes what `open` has filled in.
    let handle = unsafe { &*file.cast::<Handle>() };
    disks().get_mut(&handle.disk).map_or(gone, |state| f(state, handle))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `file` has szOsFile bytes for a Handle. Without methods in it SQLite does not close what was not opened.
    unsafe { (*file).pMethods = std::ptr::null() };
    let temporary = name.is_null();
    // SAFETY: a name is a C string.
    let path = if temporary { Some((TEMPORARY, "")) } else { parse(unsafe { CStr::from_ptr(name) }) };
    let Some((disk, name)) = path else { return ffi::SQLITE_CANTOPEN };
    let opened = match (temporary, disks()) {
        (true, mut disks) => disks.entry(disk).or_default().open(None, true),
        (false, mut disks) => disks
            .get_mut(&disk)
            .map_or(Err(ffi::SQLITE_CANTOPEN), |state| state.open(Some(name), flags & ffi::SQLITE_OPEN_CREATE != 0)),
    };
    match opened {
        Ok(id) => {
            let handle = Handle { base: ffi::sqlite3_file { pMethods: &METHODS }, disk, file: id, temporary };
            // SAFETY: as above; `out_flags` may be null.
            unsafe {
                file.cast::<Handle>().write(handle);
                if let Some(out) = out_flags.as_mut() {
                    *out = flags;
                }
            }
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: a name is a C string.
    let Some((disk, name)) = parse(unsafe { CStr::from_ptr(name) }) else { return ffi::SQLITE_IOERR_DELETE };
    disks().get_mut(&disk).map_or(ffi::SQLITE_IOERR_DELETE, |state| state.remove(name, sync_folder != 0))
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int, out: *mut c_int) -> c_int {
    // SAFETY: a name is a C string, and the result has a place.
    unsafe {
        let there = parse(CStr::from_ptr(name))
            .is_some_and(|(disk, name)| disks().get(&disk).is_some_and(|state| state.names.contains_key(name)));
        *out = c_int::from(there);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(_: *mut ffi::sqlite3_vfs, name: *const c_char, n: c_int, out: *mut c_char) -> c_int {
    // SAFETY: `out` has room for n bytes.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > n as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite's call on a file that `open` opened.
    unsafe {
        on(file, (), |state, handle| {
            if handle.temporary {
                state.files.remove(&handle.file);
            }
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: `to` has room for n bytes.
    unsafe {
        let to = std::slice::from_raw_parts_mut(to.cast::<u8>(), n as usize);
        on(file, ffi::SQLITE_IOERR_READ, |state, handle| {
            let Some(file) = state.files.get(&handle.file) else { return ffi::SQLITE_IOERR_READ };
            let bytes = file.now.get(at as usize..).unwrap_or_default();
            let there = bytes.len().min(to.len());
            to[..there].copy_from_slice(&bytes[..there]);
            to[there..].fill(0);
            if there < to.len() {
                ffi::SQLITE_IOERR_SHORT_READ
            } else {
                ffi::SQLITE_OK
            }
        })
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, n: c_int, at: i64) -> c_int {
    // SAFETY: `from` has n bytes.
    unsafe {
        let data = std::slice::from_raw_parts(from.cast::<u8>(), n as usize).to_vec();
        on(file, ffi::SQLITE_IOERR_WRITE, |state, handle| {
            state.change(handle.file, Change::Write(at as usize, data), ffi::SQLITE_IOERR_WRITE)
        })
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: as in `close`.
    unsafe {
        on(file, ffi::SQLITE_IOERR_TRUNCATE, |state, handle| {
            state.change(handle.file, Change::Truncate(len as usize), ffi::SQLITE_IOERR_TRUNCATE)
        })
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: as in `close`.
    unsafe { on(file, ffi::SQLITE_IOERR_FSYNC, |state, handle| state.sync(handle.file)) }
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: the result has a place.
    unsafe {
        *out = on(file, 0, |state, handle| state.files.get(&handle.file).map_or(0, |f| f.now.len() as i64));
    }
    ffi::SQLITE_OK
}

/// One connection at a time uses a disk, so every lock is free.
unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: the result has a place.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    assert!(bytes as usize <= size_of::<[u64; 4096]>(), "a region of the wal-index has 32 KiB");
    // SAFETY: the result has a place; a region stays where it is until the disk goes, which outlives its connections.
    unsafe {
        *out = on(file, std::ptr::null_mut(), |state, _| {
            let region = region as usize;
            while extend != 0 && state.shared.len() <= region {
                state.shared.push(Box::new([0; 4096]));
            }
            state.shared.get_mut(region).map_or(std::ptr::null_mut(), |r| r.as_mut_ptr().cast())
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(_: *mut ffi::sqlite3_file, _: c_int, _: c_int, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: as in `close`; whoever unmaps does not use the regions any more, and there is nobody else.
    unsafe {
        on(file, (), |state, _| {
            if delete != 0 {
                state.shared.clear();
            }
        });
    }
    ffi::SQLITE_OK
}
