use super::reason;

#[test]
fn numbers_moved_between_versions() {
    for (minor, number, text) in [
        (17, 14, "chan receive"),
        (19, 21, "timer goroutine (idle)"),
        (20, 21, "sync.Mutex.Lock"),
        (23, 21, "sync.Mutex.Lock"),
        (24, 24, "sync.WaitGroup.Wait"),
        (25, 22, "sync.Mutex.Lock"),
        (26, 19, "chan receive"),
        (27, 46, "cleanup wait"),
    ] {
        assert_eq!(reason(minor, number), Some(text), "Go 1.{minor}");
    }
    assert_eq!(reason(27, 47), None);
    assert_eq!(reason(28, 1), None);
    assert_eq!(reason(16, 1), None);
}
