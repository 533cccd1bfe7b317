//! A site that answers everything with `21`, on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

pub(crate) fn open() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let (mut seen, mut part) = (Vec::new(), [0; 1024]);
            // A head, and of a chunked body its end.
            while !(seen.windows(4).any(|window| window == b"\r\n\r\n")
                && (!String::from_utf8_lossy(&seen).contains("chunked") || seen.ends_with(b"0\r\n\r\n")))
            {
                match client.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => seen.extend(&part[..length]),
                }
            }
            drop(client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n21"));
        }
    });
    address
}
