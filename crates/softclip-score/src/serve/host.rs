//! Whom a request is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The names of this server that a request's `Host` may have. A page elsewhere whose name is made to point here names itself.
#[derive(Debug)]
pub(super) struct Hosts {
    address: SocketAddr,
    given: String,
}

impl Hosts {
    /// For a server that listens on `address` because of `given`.
    pub fn new(address: SocketAddr, given: &str) -> Self {
        Self { address, given: given.trim_matches(['[', ']']).to_ascii_lowercase() }
    }

    /// Where this machine reaches the server.
    pub fn reachable(address: SocketAddr) -> SocketAddr {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, address.port())
    }

    /// Whether `host`, as in the header, is this server.
    pub fn has(&self, host: &str) -> bool {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((name, port)) => (name, port),
                None => return false,
            },
            None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok(),
            None if port.is_empty() => Some(80),
            None => None,
        };
        let name = name.to_ascii_lowercase();
        let own = match name.parse::<IpAddr>() {
            // Addresses cannot be made to point elsewhere.
            Ok(ip) => ip == self.address.ip() || ip.is_loopback() || self.address.ip().is_unspecified(),
            Err(_) => name == "localhost" || name == self.given,
        };
        own && port == Some(self.address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_server_pass() {
        let hosts = |address: &str, given: &str| Hosts::new(address.parse().unwrap(), given);
        let here = hosts("127.0.0.1:8080", "127.0.0.1");
        for good in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"] {
            assert!(here.has(good), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "localhost:80",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "192.168.1.7:8080",
            "",
            ":8080",
            "[::1:8080",
            "[::1]8080",
            "localhost:8080:8080",
            "127.0.0.1:99999",
            "user@localhost:8080",
        ] {
            assert!(!here.has(bad), "{bad}");
        }
        let everywhere = hosts("0.0.0.0:8080", "0.0.0.0");
        assert!(everywhere.has("192.168.1.7:8080") && !everywhere.has("evil.example:8080"));
        let named = hosts("192.168.1.7:80", "Box.Local");
        assert!(named.has("box.local") && named.has("192.168.1.7:80") && !named.has("192.168.1.8:80"));
        assert_eq!(Hosts::reachable("0.0.0.0:7".parse().unwrap()), "127.0.0.1:7".parse().unwrap());
    }
}
