//! Where ranks find each other.

use std::ffi::CString;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use softclip_sys as sys;

use crate::device::init_logging;
use crate::error::{Error, Reported, Result, check, report};

/// Keys and values that the ranks of a job share: on a TCP server that one process hosts, or in a file. A key that is not there is
/// waited for, up to the store's time-out. Threads may share a store; one that waits makes the others wait.
pub struct Store {
    raw: NonNull<sys::SoftclipStore>,
    name: String,
    port: Option<u16>,
    timeout: Duration,
}

// SAFETY: c10d's stores are reference-counted atomically and hold a lock during each operation.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// A server on this machine, and a client of it. Port 0 stands for any free one: [`port`](Store::port) tells which. It ends with
    /// the last clone in this process.
    ///
    /// # Errors
    /// The port is taken, or may not be used.
    pub fn host(address: &str, port: u16, timeout: Duration) -> Result<Self> {
        Self::tcp(address, port, true, timeout)
    }

    /// A client of the server at `address`, which it waits for.
    ///
    /// # Errors
    /// Nobody answers there; told after two or three times `timeout`, because libtorch tries again.
    pub fn connect(address: &str, port: u16, timeout: Duration) -> Result<Self> {
        Self::tcp(address, port, false, timeout)
    }

    fn tcp(address: &str, port: u16, server: bool, timeout: Duration) -> Result<Self> {
        init_logging();
        let name = format!("store at {address}:{port}");
        let host = c_string(&name, address)?;
        let mut bound = 0;
        // SAFETY: the string, the port and the error record outlive the call.
        let made = report(|e| unsafe { sys::softclip_tcp_store(host.as_ptr(), port, server, millis(timeout), &mut bound, e) });
        let raw = made.map_err(|reported| {
            let why = reported.reason();
            let why = if server {
                format!("cannot listen there: {why}")
            } else {
                format!("no store answers (does rank 0 or the launcher run? are MASTER_ADDR and MASTER_PORT theirs?): {why}")
            };
            Error::Store { store: name.clone(), why }
        })?;
        let name = if port == 0 { format!("store at {address}:{bound}") } else { name };
        Self::new(raw, name, Some(bound), timeout)
    }

    /// A store in a file that all ranks reach. The caller removes it, and takes a new one for each job.
    ///
    /// # Errors
    /// The path holds a NUL byte. A file that cannot be written shows at first use.
    pub fn file(path: &Path, timeout: Duration) -> Result<Self> {
        init_logging();
        let name = format!("store in {}", path.display());
        let text = c_string(&name, &path.to_string_lossy())?;
        // SAFETY: the string and the error record outlive the call.
        let raw = check(|e| unsafe { sys::softclip_file_store(text.as_ptr(), millis(timeout), e) })?;
        Self::new(raw, name, None, timeout)
    }

    /// The same store, with `prefix` before each key: for a further group, or after a restart.
    ///
    /// # Errors
    /// The prefix holds a NUL byte.
    pub fn prefixed(&self, prefix: &str) -> Result<Self> {
        let text = c_string(&self.name, prefix)?;
        // SAFETY: the string, the store and the error record outlive the call; the new store keeps the inner one alive itself.
        let raw = check(|e| unsafe { sys::softclip_prefix_store(text.as_ptr(), self.raw.as_ptr(), e) })?;
        Self::new(raw, self.name.clone(), self.port, self.timeout)
    }

    fn new(raw: *mut sys::SoftclipStore, name: String, port: Option<u16>, timeout: Duration) -> Result<Self> {
        let raw = NonNull::new(raw).ok_or_else(|| Error::Store { store: name.clone(), why: "libtorch made none".into() })?;
        Ok(Store { raw, name, port, timeout })
    }

    /// The server's port; none of a store in a file.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Sets a value.
    ///
    /// # Errors
    /// The store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let name = c_string(&self.name, key)?;
        // SAFETY: key, value and the error record outlive the call, which copies them.
        report(|e| unsafe { sys::softclip_store_set(self.raw.as_ptr(), name.as_ptr(), value.as_ptr(), value.len(), e) })
            .map_err(|reported| self.failed(key, &reported))
    }

    /// The value of a key, which is waited for.
    ///
    /// # Errors
    /// Nobody has set it by the time-out, or the store is gone.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let name = c_string(&self.name, key)?;
        let mut length = 0;
        // SAFETY: key, length and the error record outlive the call.
        let value = report(|e| unsafe { sys::softclip_store_get(self.raw.as_ptr(), name.as_ptr(), &mut length, e) })
            .map_err(|reported| self.failed(key, &reported))?;
        // SAFETY: the shim allocated `length` bytes for us, which are copied, and freed once.
        unsafe {
            let copy = std::slice::from_raw_parts(value.cast::<u8>(), length).to_vec();
            sys::softclip_free(value);
            Ok(copy)
        }
    }

    /// Adds to a counter, which starts at 0: its new value.
    ///
    /// # Errors
    /// The store is gone, or the key's value is no counter.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let name = c_string(&self.name, key)?;
        // SAFETY: key and the error record outlive the call.
        report(|e| unsafe { sys::softclip_store_add(self.raw.as_ptr(), name.as_ptr(), amount, e) })
            .map_err(|reported| self.failed(key, &reported))
    }

    /// Whether the key is there now.
    ///
    /// # Errors
    /// The store is gone.
    pub fn contains(&self, key: &str) -> Result<bool> {
        let name = c_string(&self.name, key)?;
        // SAFETY: key and the error record outlive the call.
        report(|e| unsafe { sys::softclip_store_has(self.raw.as_ptr(), name.as_ptr(), e) })
            .map_err(|reported| self.failed(key, &reported))
    }

    /// Waits until the key is there.
    ///
    /// # Errors
    /// It is not by the time-out, or the store is gone.
    pub fn wait(&self, key: &str, timeout: Duration) -> Result<()> {
        let name = c_string(&self.name, key)?;
        // SAFETY: key and the error record outlive the call.
        report(|e| unsafe { sys::softclip_store_wait(self.raw.as_ptr(), name.as_ptr(), millis(timeout), e) })
            .map_err(|reported| self.failed(key, &reported))
    }

    pub(super) fn as_ptr(&self) -> *const sys::SoftclipStore {
        self.raw.as_ptr()
    }

    fn failed(&self, key: &str, reported: &Reported) -> Error {
        Error::Store { store: self.name.clone(), why: format!("key `{key}`: {}", reported.reason()) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once. There is nobody to tell of an error to.
        let _ = check(|e| unsafe { sys::softclip_store_free(self.raw.as_ptr(), e) });
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whole milliseconds, at least one: c10d takes 0 for "for ever".
pub(super) fn millis(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).clamp(1, 1_000_000_000_000)
}

pub(super) fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Invalid(format!("{what}: `{}` has a NUL byte", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    /// Where the time-out is not what is tested.
    const LONG: Duration = Duration::from_secs(30);

    fn exchange(a: &Store, b: &Store) {
        a.set("greeting", b"hello\0there").unwrap();
        assert_eq!(b.get("greeting").unwrap(), b"hello\0there");
        assert_eq!((a.add("count", 2).unwrap(), b.add("count", 3).unwrap()), (2, 5));
        assert!(b.contains("greeting").unwrap() && !b.contains("absent").unwrap());
        b.wait("greeting", LONG).unwrap();
    }

    #[test]
    fn a_server_on_any_port_and_its_clients_share_keys() {
        let server = Store::host("127.0.0.1", 0, LONG).unwrap();
        let port = server.port().unwrap();
        assert!(port > 0);
        let client = Store::connect("127.0.0.1", port, LONG).unwrap();
        exchange(&server, &client);
        let (a, b) = (server.prefixed("run/1").unwrap(), client.prefixed("run/1").unwrap());
        assert!(!b.contains("greeting").unwrap());
        exchange(&a, &b);
    }

    #[test]
    fn a_file_does_as_well() {
        let path = std::env::temp_dir().join(format!("softclip-store-{}", std::process::id()));
        let (a, b) = (Store::file(&path, LONG).unwrap(), Store::file(&path, LONG).unwrap());
        exchange(&a, &b);
        assert!(a.port().is_none());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_missing_key_is_an_error_by_the_time_out() {
        // To connect has to be done in this time as well.
        let server = Store::host("127.0.0.1", 0, Duration::from_secs(3)).unwrap();
        let start = Instant::now();
        for error in [server.get("absent").unwrap_err(), server.wait("absent", SHORT).unwrap_err()] {
            let text = error.to_string();
            assert!(matches!(error, Error::Store { .. }) && text.contains("`absent`") && text.contains("127.0.0.1:"), "{text}");
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        // The store goes on.
        server.set("absent", b"").unwrap();
        assert_eq!(server.get("absent").unwrap(), b"");
    }

    #[test]
    fn a_port_that_is_taken_is_an_error() {
        let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = Store::host("127.0.0.1", port, LONG).unwrap_err().to_string();
        assert!(text.contains(&port.to_string()) && text.contains("cannot listen"), "{text}");
    }

    #[test]
    fn nobody_at_the_address_is_an_error_that_names_it() {
        // Bound and dropped: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let start = Instant::now();
        let text = Store::connect("127.0.0.1", port, SHORT).unwrap_err().to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("MASTER_ADDR"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }

    #[test]
    fn a_nul_byte_is_refused() {
        let server = Store::host("127.0.0.1", 0, LONG).unwrap();
        assert!(server.get("a\0b").unwrap_err().to_string().contains("NUL"));
        assert!(Store::host("a\0b", 0, LONG).is_err());
    }
}
