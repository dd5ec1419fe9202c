//! HTTP by hand, for what an ordinary client would not do.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A connection with a deadline for each read.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the service listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration above zero");
    stream
}

/// Sends bytes and reads until the service closes the connection.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("the service reads");
    let mut answer = Vec::new();
    // A handler that panics may reset the connection; what came before counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// One request on a connection of its own; the whole answer.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> String {
    exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
}

/// Sends a request and reads the first bytes of the answer; the connection stays open.
pub(crate) fn begin(address: SocketAddr, head: &str) -> (TcpStream, String) {
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).expect("the service reads");
    let mut first = [0; 512];
    let length = stream.read(&mut first).expect("the service answers");
    let text = String::from_utf8_lossy(&first[..length]).into_owned();
    (stream, text)
}
