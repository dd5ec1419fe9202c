use std::sync::{
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use http_body_util::BodyExt as _;

use super::*;

fn rendering(size: usize) -> Arc<Rendering> {
    Arc::new(Rendering(Mutex::new(Some(vec![7; size].into()))))
}

#[test]
fn the_oldest_are_given_up() {
    let mut kept = VecDeque::new();
    let all = [rendering(4), rendering(3), rendering(3), rendering(100)];
    for it in &all[..2] {
        keep(&mut kept, it, 9);
    }
    assert!(all[..2].iter().all(|it| it.size() > 0));
    keep(&mut kept, &all[2], 9);
    assert_eq!([0, 1, 2].map(|i| all[i].size()), [0, 3, 3]);
    // One that is larger than all may be is kept, alone.
    keep(&mut kept, &all[3], 9);
    assert_eq!([1, 2, 3].map(|i| all[i].size()), [0, 0, 100]);
}

#[test]
fn who_asks_without_pause_waits_and_scrapes_in_reason_do_not() {
    let (mut spent, start, ms) = (RENDERED, Instant::now(), Duration::from_millis);
    // A node with so much to tell that a scrape takes 100 ms, scraped by three every 15 s.
    for second in (0..6000).step_by(5) {
        let now = start + Duration::from_secs(second);
        assert_eq!(rest(&spent, now), Duration::ZERO);
        spent.spend(ms(100), now);
    }
    // Without pause: 4 ms each.
    let (mut spent, mut now, mut made) = (RENDERED, start, 0);
    while now < start + Duration::from_secs(60) {
        now += rest(&spent, now) + ms(4);
        spent.spend(ms(4), now);
        made += 1;
    }
    assert!((300..325).contains(&made), "{made}");
    spent.spend(Duration::from_secs(1), now);
    assert_eq!(rest(&spent, now), LONGEST);
}

#[test]
fn what_nobody_reads_takes_no_room() {
    let mut kept = VecDeque::new();
    keep(&mut kept, &rendering(8), 9);
    let read = rendering(8);
    keep(&mut kept, &read, 9);
    keep(&mut kept, &rendering(1), 9);
    assert_eq!((read.size(), kept.len()), (8, 2));
}

fn text() -> String {
    (0..20_000).fold(String::new(), |text, i| text + &format!("line {i}\n"))
}

#[tokio::test]
async fn readers_get_the_same_text_compressed_or_not() {
    let renderings = Renderings::new(|(), out| out.write_all(text().as_bytes()));
    let made = renderings.get(()).await.expect("it is made");
    let plain = made.clone().body(false).collect().await.expect("it is whole").to_bytes();
    assert_eq!(plain, text().as_bytes());
    let compressed = made.body(true).collect().await.expect("it is whole").to_bytes();
    let mut decoded = String::new();
    GzDecoder::new(&compressed[..]).read_to_string(&mut decoded).expect("it is gzip");
    assert_eq!(decoded, text());
}

#[tokio::test]
async fn a_body_whose_rendering_is_given_up_ends_in_an_error() {
    for gzip in [false, true] {
        // Random enough to be several chunks when compressed (xorshift).
        let noise: Vec<u8> = std::iter::successors(Some(1_u32), |it| {
            let it = it ^ (it << 13);
            let it = it ^ (it >> 17);
            Some(it ^ (it << 5))
        })
        .take(500_000)
        .map(|it| it as u8)
        .collect();
        let renderings = Renderings::new(move |(), out| out.write_all(&noise));
        let made = renderings.get(()).await.expect("it is made");
        let mut body = made.clone().body(gzip);
        assert!(body.frame().await.expect("a frame").is_ok());
        *made.bytes() = None;
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            rest.push(frame.is_ok());
            if rest.last() == Some(&false) {
                break;
            }
        }
        assert_eq!(rest.last(), Some(&false), "gzip: {gzip}");
    }
}

#[tokio::test]
async fn who_asks_while_one_is_made_shares_the_next_and_a_reader_holds_up_nobody() {
    let made = Arc::new(AtomicUsize::new(0));
    let (count, (go, wait)) = (Arc::clone(&made), mpsc::channel::<()>());
    let wait = Mutex::new(wait);
    let renderings = Arc::new(Renderings::new(move |(), out| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        wait.lock().unwrap().recv().map_err(io::Error::other)?;
        write!(out, "{number}")
    }));
    let ask = || {
        let renderings = Arc::clone(&renderings);
        tokio::spawn(async move { renderings.get(()).await.expect("it is made") })
    };
    let first = ask();
    while made.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..50).map(|_| ask()).collect();
    // One of them leaves.
    others[0].abort();
    tokio::task::yield_now().await;
    go.send(()).unwrap();
    go.send(()).unwrap();
    let (first, mut texts) = (first.await.unwrap(), Vec::new());
    for other in others.into_iter().skip(1) {
        texts.push(other.await.unwrap().body(false).collect().await.unwrap().to_bytes());
    }
    assert!(texts.len() == 49 && texts.iter().all(|it| it == "1"), "{texts:?}");
    assert_eq!(first.body(false).collect().await.unwrap().to_bytes(), "0");
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_fails_or_panics_is_told_and_the_next_is_made() {
    let renderings = Renderings::new(|what: u8, out| match what {
        0 => Err(io::ErrorKind::Other.into()),
        1 => panic!("meant"),
        _ => out.write_all(b"well"),
    });
    assert!(renderings.get(0).await.is_none());
    assert!(renderings.get(1).await.is_none());
    assert!(renderings.get(0).await.is_none());
    assert!(renderings.get(2).await.is_some());
}
