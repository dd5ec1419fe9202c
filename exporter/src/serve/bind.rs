//! Where this process listens. `[::]` means every address of the machine, whatever IP versions its kernel has. Knows nothing of
//! what is served there.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Pending connections that the kernel keeps, as the standard library has it.
const BACKLOG: i32 = 128;

/// Listens; the error names the address and what to do. `[::]` is all addresses, of both families; where the kernel has no IPv6 it
/// is those of the other.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let listener = listener(address).or_else(|error| match instead(address, error.raw_os_error()) {
        Some(instead) => listener(instead),
        None => Err(error),
    });
    let listener = listener.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "something else, perhaps another gopulse, listens there: choose another with --metrics-address"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose another with --metrics-address",
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address: choose another with --metrics-address"
            }
            _ => "choose another with --metrics-address",
        };
        format!("cannot listen on {address}: {error}; {advice}")
    })?;
    listener.set_nonblocking(true).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    Ok(listener)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As the standard library does: the address of one that has just ended is free.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The address instead of `[::]` where there is no IPv6: built out of the kernel, or off by `ipv6.disable=1`.
fn instead(address: SocketAddr, errno: Option<i32>) -> Option<SocketAddr> {
    let no_ipv6 = matches!(errno, Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
    let everywhere = address.is_ipv6() && address.ip().is_unspecified();
    (no_ipv6 && everywhere).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

#[cfg(test)]
#[expect(unsafe_code, reason = "prctl(2) has no safe wrapper that takes a filter")]
mod tests {
    use std::net::{Ipv6Addr, TcpStream};

    use super::*;

    const EVERYWHERE: SocketAddr = SocketAddr::V6(std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));

    /// The kernel answers this thread as one without IPv6 does.
    fn without_ipv6() {
        let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
        let unless = |k: u32, skipped: u8| libc::sock_filter {
            jf: skipped,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k)
        };
        // Of struct seccomp_data: the system call's number, and the lower half of its first argument.
        let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
        let give = |result: u32| statement(libc::BPF_RET | libc::BPF_K, result);
        let mut filter = [
            load(0),
            unless(libc::SYS_socket as u32, 3),
            load(16),
            unless(libc::AF_INET6 as u32, 1),
            give(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
            give(libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program and its filter live until the call returns, and the kernel copies both.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(refused, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn everywhere_is_both_families() {
        let listener = bind(EVERYWHERE).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn everywhere_is_ipv4_where_the_kernel_has_no_ipv6() {
        let there = std::thread::spawn(|| {
            without_ipv6();
            let refused = bind("[::1]:0".parse().unwrap()).unwrap_err();
            (bind(EVERYWHERE).map(|it| it.local_addr().unwrap()), refused)
        });
        let (everywhere, refused) = there.join().unwrap();
        let address = everywhere.unwrap();
        assert!(address.is_ipv4() && address.ip().is_unspecified(), "{address}");
        assert!(refused.contains("[::1]:0"), "an address that was asked for is not replaced: {refused}");
    }

    #[test]
    fn only_everywhere_is_replaced_and_only_for_want_of_ipv6() {
        let instead = |address: &str, errno| super::instead(address.parse().unwrap(), errno).map(|it| it.to_string());
        for errno in [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            assert_eq!(instead("[::]:6443", Some(errno)).as_deref(), Some("0.0.0.0:6443"));
            assert_eq!(instead("[::1]:6443", Some(errno)), None);
            assert_eq!(instead("0.0.0.0:6443", Some(errno)), None);
        }
        assert_eq!(instead("[::]:6443", Some(libc::EADDRINUSE)), None);
        assert_eq!(instead("[::]:6443", None), None);
    }
}
