//! Why a URL gave no file.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;

/// Why a URL gave no file; [`FetchError::kind`] is the name to count by.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The options do not fit each other; nothing was fetched.
    #[error("{0}")]
    Options(String),
    /// A thread could not be started; nothing was fetched.
    #[error("a thread does not start: {0}")]
    Thread(#[source] io::Error),
    /// Not a URL, or none that is fetched.
    #[error("{0}")]
    BadUrl(String),
    /// Every address of the host lies in a network that is not public.
    #[error("{host} is at {address}, which is no public address; `allow_private` lifts this")]
    PrivateAddress {
        /// The host as the URL names it.
        host: String,
        /// The first of its addresses.
        address: IpAddr,
    },
    /// The host's name has no address.
    #[error("no address of {host}: {reason}")]
    Dns {
        /// The host.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// No connection, or the system broke it.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// No encrypted connection: a certificate that does not hold, for one.
    #[error("TLS: {0}")]
    Tls(String),
    /// It took too long.
    #[error("timed out {0}")]
    Timeout(&'static str),
    /// Not requested, because earlier requests to the host timed out.
    #[error("not requested: {timeouts} requests to {host} in a row timed out")]
    HostGivenUp {
        /// The host as the URL names it.
        host: String,
        /// Requests that timed out in a row.
        timeouts: u32,
    },
    /// The server closed or reset the connection before the response was whole.
    #[error("the connection ended before the response did: {0}")]
    Closed(io::Error),
    /// What came is not HTTP, or has headers without end.
    #[error("not a valid HTTP response: {0}")]
    Protocol(String),
    /// The server answered, but not with a file.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// Too many redirects, or a loop of them.
    #[error("{0}")]
    Redirects(String),
    /// More bytes than `max_bytes`, as announced or as received.
    #[error("more than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The response is of a type that was not requested, and its first bytes are not those of an image.
    #[error("content type is {0:?}, and the bytes are no image")]
    ContentType(String),
    /// The server asks that the image is not used for this.
    #[error("the server's X-Robots-Tag says {0:?}")]
    Disallowed(String),
    /// The body is compressed in a way that was not asked for, or damaged.
    #[error("content encoding: {0}")]
    Encoding(String),
    /// A response without any bytes.
    #[error("the response is empty")]
    Empty,
    /// Stopped from outside before this URL was done.
    #[error("stopped")]
    Cancelled,
    /// A defect of this program, met at this URL.
    #[error("a defect of this program: {0}")]
    Panic(String),
}

impl FetchError {
    /// A short name of the cause, to count by: `timeout`, `dns`, `http 404`, `too large`, …
    pub fn kind(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Options(_) => "options",
            Self::Thread(_) => "thread",
            Self::BadUrl(_) => "bad url",
            Self::PrivateAddress { .. } => "private address",
            Self::Dns { .. } => "dns",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            // The cause is the same.
            Self::Timeout(_) | Self::HostGivenUp { .. } => "timeout",
            Self::Closed(_) => "closed",
            Self::Protocol(_) => "protocol",
            Self::Status(code) => return Cow::Owned(format!("http {code}")),
            Self::Redirects(_) => "redirects",
            Self::TooLarge { .. } => "too large",
            Self::ContentType(_) => "content type",
            Self::Disallowed(_) => "disallowed",
            Self::Encoding(_) => "content encoding",
            Self::Empty => "empty",
            Self::Cancelled => "cancelled",
            Self::Panic(_) => "panic",
        })
    }

    /// Whether the same request may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Status(code) => matches!(code, 429 | 500 | 502 | 503 | 504),
            // The kernel has already knocked several times when a connection times out.
            Self::Timeout(when) => *when != CONNECTING,
            Self::Closed(_) => true,
            Self::Connect(e) => e.kind() == io::ErrorKind::ConnectionRefused,
            // The standard library tells a resolver's failures apart by text alone (glibc, then musl).
            Self::Dns { reason, .. } => reason.contains("Temporary failure") || reason.contains("Try again"),
            _ => false,
        }
    }
}

const CONNECTING: &str = "while connecting";

impl From<ureq::Error> for FetchError {
    fn from(error: ureq::Error) -> Self {
        use ureq::Error as E;
        match error {
            // The resolver's own words.
            E::Other(inner) => match inner.downcast::<FetchError>() {
                Ok(ours) => *ours,
                Err(other) => Self::Protocol(other.to_string()),
            },
            E::Timeout(at) => Self::Timeout(phase(at)),
            E::Io(e) => of_io(e),
            E::Decompress(_, e) if e.kind() == io::ErrorKind::UnexpectedEof => Self::Closed(e),
            E::Decompress(name, e) => Self::Encoding(format!("damaged {name}: {e}")),
            E::BadUri(reason) => Self::BadUrl(reason),
            // Requests have no headers of a caller: only the URL can be ill-formed.
            E::Http(e) => Self::BadUrl(e.to_string()),
            e @ (E::Tls(_) | E::Rustls(_) | E::Pem(_) | E::TlsRequired) => Self::Tls(e.to_string()),
            e @ (E::ConnectionFailed | E::ConnectProxyFailed(_) | E::InvalidProxyUrl) => {
                Self::Connect(io::Error::other(e.to_string()))
            }
            e => Self::Protocol(e.to_string()),
        }
    }
}

impl From<io::Error> for FetchError {
    /// Errors met while reading a body; `ureq` wraps its own into them.
    fn from(error: io::Error) -> Self {
        Self::from(ureq::Error::from(error))
    }
}

fn of_io(e: io::Error) -> FetchError {
    use io::ErrorKind as K;
    match e.kind() {
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof | K::NotConnected => FetchError::Closed(e),
        // Of all that is read here, only a TLS record can be ill-formed for the system.
        K::InvalidData => FetchError::Tls(e.to_string()),
        K::TimedOut => FetchError::Timeout(phase(ureq::Timeout::Connect)),
        _ => FetchError::Connect(e),
    }
}

fn phase(at: ureq::Timeout) -> &'static str {
    match at {
        ureq::Timeout::Resolve => "while looking up the host's address",
        ureq::Timeout::Connect => CONNECTING,
        ureq::Timeout::RecvResponse => "before the headers were complete",
        ureq::Timeout::PerRead | ureq::Timeout::PerWrite => "waiting for the next bytes",
        _ => "before the response was complete",
    }
}
