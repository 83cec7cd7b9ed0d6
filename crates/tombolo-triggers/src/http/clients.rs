//! How many connections each client has, so that no client takes all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

/// The bits of an IPv6 address that name a network of one customer; the rest is the customer's to choose.
const NETWORK_BITS: u32 = 64;

/// The connections of each client that has any.
#[derive(Clone)]
pub struct Clients {
    open: Arc<Mutex<HashMap<IpAddr, u32>>>,
    each_max: u32,
}

/// The right to one connection, given back when dropped.
pub struct Permit {
    _of_all: OwnedSemaphorePermit,
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    pub fn new(each_max: u32) -> Self {
        Self {
            open: Arc::default(),
            each_max,
        }
    }

    /// One more connection of this client; `None` when it has as many as it may.
    pub fn enter(&self, address: IpAddr, of_all: OwnedSemaphorePermit) -> Option<Permit> {
        let client = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Permit {
            _of_all: of_all,
            clients: self.clone(),
            client,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self
            .clients
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// What counts as one client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> NETWORK_BITS << NETWORK_BITS;
            Ipv6Addr::from_bits(network).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn a_client_has_its_share_and_gets_it_back() {
        let all = Arc::new(Semaphore::new(10));
        let clients = Clients::new(1);
        let enter = |address: &str| {
            let of_all = all.clone().try_acquire_owned().unwrap();
            clients.enter(address.parse().unwrap(), of_all)
        };
        let held = enter("192.0.2.1").unwrap();
        assert!(enter("::ffff:192.0.2.1").is_none());
        let _other = enter("192.0.2.2").unwrap();
        let _network = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::ffff:1").is_none());
        let _next_network = enter("2001:db8:0:1::1").unwrap();
        assert_eq!(all.available_permits(), 6);
        drop(held);
        let _again = enter("192.0.2.1").unwrap();
    }
}
