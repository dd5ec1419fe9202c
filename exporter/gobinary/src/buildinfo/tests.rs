use super::*;

#[test]
fn module_text() {
    let text = "path\tcommand\nmod\texample.com/a\t(devel)\t\n=>\t../b\t\t\ndep\tgolang.org/x/net\tv0.1.0\th1:x=\n\
                dep\tb.c/d\tv1.0.0\n=>\tb.c/fork\tv1.0.1\th1:y=\nbuild\t-ldflags=\"-s -w\"\n\
                build\tDefaultGODEBUG=httpmuxgo121=1,tlsrsakex=1\nbuild\tCGO_ENABLED=0\n";
    let info = parse_modinfo(text.as_bytes());
    assert_eq!(info.path, "command");
    assert_eq!(info.main.as_ref().unwrap().replace.as_ref().unwrap().path, "../b");
    assert_eq!(info.module("golang.org/x/net").unwrap().version, "v0.1.0");
    assert_eq!(info.module("b.c/d").unwrap().path, "b.c/fork");
    assert_eq!(info.setting("-ldflags"), Some("-s -w"));
    assert!(info.godebug("httpmuxgo121", "1") && !info.godebug("httpmuxgo121", "0"));
}

#[test]
fn varints_end() {
    assert_eq!(uvarint(&[0x05]), Some((5, 1)));
    assert_eq!(uvarint(&[0x80, 0x01]), Some((128, 2)));
    assert_eq!(uvarint(&[0xff; 10]), None);
    assert_eq!(uvarint(&[]), None);
}

#[test]
fn text_without_sentinels_is_not_trusted() {
    assert!(strip_sentinels(b"path\tx\n").is_empty());
}
