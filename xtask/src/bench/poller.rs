//! A load generator that never sleeps: one thread asks each connection in turn whether its answer is there. One that sleeps is
//! woken by the service's CPU, with an interrupt to another; the slower the service, the oftener, and that would be counted as
//! the probes' cost. Knows nothing of what is measured.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many rounds are made between two looks at the clock.
const ROUNDS: u32 = 4096;

/// A request that is sent, and the status that it must be answered with.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// With `{n}` for a running number.
    pub(super) path: String,
    pub(super) status: u16,
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    /// The status that the request under way must be answered with.
    wanted: u16,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, answer: Vec::new(), wanted: 0 })
    }

    fn send(&mut self, wanted: &Wanted, number: u64) -> Result<()> {
        let path = wanted.path.replace("{n}", &number.to_string());
        // A request is smaller than any socket's buffer, and there is one at a time.
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())?;
        self.wanted = wanted.status;
        Ok(())
    }

    /// Whether an answer has come whole.
    fn answered(&mut self) -> Result<bool> {
        let mut bytes = [0; 8192];
        match self.stream.read(&mut bytes) {
            Ok(0) => bail!("the service closed a connection"),
            Ok(read) => self.answer.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some((status, length)) = head(&self.answer)? else { return Ok(false) };
        if self.answer.len() < length {
            return Ok(false);
        }
        self.answer.drain(..length);
        if status != self.wanted {
            bail!("status {status} where {} was expected", self.wanted);
        }
        Ok(true)
    }
}

/// The status of an answer and how long it is, once its head is there.
fn head(answer: &[u8]) -> Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).context("an answer that is no HTTP/1.1")? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    Ok(Some((status, head + length.context("an answer without Content-Length")?)))
}

/// Sends `count` requests, the `wanted` in turn, one at a time on each connection, as fast as they are answered; how many were
/// answered a second.
///
/// # Errors
/// An answer that is not the one wanted, a connection that ends, no answer for 30 s.
pub(super) fn run(address: SocketAddr, wanted: &[Wanted], connections: usize, count: u64) -> Result<f64> {
    let mut connections = (0..connections).map(|_| Connection::open(address)).collect::<Result<Vec<_>>>()?;
    let mut next = (0..count).zip(wanted.iter().cycle());
    for (connection, (number, wanted)) in connections.iter_mut().zip(next.by_ref()) {
        connection.send(wanted, number)?;
    }
    let start = Instant::now();
    let (mut answered, mut rounds) = (0, 0);
    let mut seen = (start, answered);
    while answered < count {
        for connection in &mut connections {
            if connection.answered()? {
                answered += 1;
                if let Some((number, wanted)) = next.next() {
                    connection.send(wanted, number)?;
                }
            }
        }
        rounds += 1;
        if rounds % ROUNDS == 0 {
            if answered > seen.1 {
                seen = (Instant::now(), answered);
            } else if seen.0.elapsed() > PATIENCE {
                bail!("{answered} of {count} requests answered, and none for {} s", PATIENCE.as_secs());
            }
        }
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 0..answer.len() - 5 {
            assert_eq!(head(&answer[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(head(answer).unwrap(), Some((404, answer.len())));
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    #[test]
    fn what_is_not_wanted_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let service = std::thread::spawn(move || {
            for answer in
                ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", ""]
            {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 64];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /7/0 HTTP/1.1\r\n"), "{:?}", &request[..read]);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let wanted = [Wanted { path: "/7/{n}".into(), status: 200 }];
        assert!(run(address, &wanted, 1, 1).unwrap() > 0.0);
        assert!(run(address, &wanted, 1, 1).unwrap_err().to_string().contains("status 500 where 200"));
        assert!(run(address, &wanted, 1, 1).unwrap_err().to_string().contains("closed"));
        service.join().unwrap();
    }
}
