//! A UDP proxy in front of a node, that can drop packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Rules {
    all: bool,
    from: BTreeSet<SocketAddr>,
    stopped: bool,
}

pub struct Proxy {
    pub address: SocketAddr,
    rules: Arc<Mutex<Rules>>,
}

impl Proxy {
    /// Forwards what comes to `self.address` to `target`, each sender by a socket of its own, and the answers back.
    pub fn start(target: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        front.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let address = front.local_addr().expect("an address");
        let rules = Arc::new(Mutex::new(Rules::default()));
        let shared = Arc::clone(&rules);
        std::thread::spawn(move || forward(&front, target, &shared));
        Self { address, rules }
    }

    pub fn cut_all(&self, cut: bool) {
        self.rules.lock().expect("no one panics with it").all = cut;
    }

    pub fn cut_from(&self, from: SocketAddr, cut: bool) {
        let mut rules = self.rules.lock().expect("no one panics with it");
        if cut {
            rules.from.insert(from);
        } else {
            rules.from.remove(&from);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.rules.lock().expect("no one panics with it").stopped = true;
    }
}

fn passes(rules: &Mutex<Rules>, from: SocketAddr) -> bool {
    let rules = rules.lock().expect("no one panics with it");
    !rules.all && !rules.from.contains(&from)
}

fn forward(front: &UdpSocket, target: SocketAddr, rules: &Arc<Mutex<Rules>>) {
    let mut backs: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
    let mut packet = [0u8; 65536];
    while !rules.lock().expect("no one panics with it").stopped {
        let Ok((n, from)) = front.recv_from(&mut packet) else { continue };
        if !passes(rules, from) {
            continue;
        }
        let back = backs.entry(from).or_insert_with(|| {
            let back = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            back.connect(target).expect("loopback connects");
            back.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            let (reader, front) = (back.try_clone().expect("a clone"), front.try_clone().expect("a clone"));
            let rules = Arc::clone(rules);
            std::thread::spawn(move || answer(&reader, &front, from, &rules));
            back
        });
        let _ = back.send(packet.get(..n).unwrap_or_default());
    }
}

fn answer(back: &UdpSocket, front: &UdpSocket, to: SocketAddr, rules: &Mutex<Rules>) {
    let mut packet = [0u8; 65536];
    while !rules.lock().expect("no one panics with it").stopped {
        if let Ok(n) = back.recv(&mut packet) {
            if passes(rules, to) {
                let _ = front.send_to(packet.get(..n).unwrap_or_default(), to);
            }
        }
    }
}
