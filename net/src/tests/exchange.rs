//! Nodes exchange entries and chunks, forward them, find each other again and agree on being in sync.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cas::Content;
use libp2p::Multiaddr;

use crate::error::FetchError;
use crate::fetch::Priority;
use crate::handle::Event;
use crate::host::JournalHost as _;
use crate::testing::Rng;
use crate::testing::node::{TestNode, WAIT, config, loopback, node, node_on, node_with, until};
use crate::testing::store::FakeStore;

async fn connected(a: &TestNode, b: &TestNode) {
    until("connected", || a.is_connected(&b.device) && b.is_connected(&a.device)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_reaches_the_other_and_its_content_follows() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    connected(&a, &b).await;
    let bytes = Rng::new(1).bytes(3_000_000);
    let content = a.save("scene", &bytes);
    until("the entry", || b.journal.texts().contains("scene")).await;
    b.handle.want(vec![content], Priority::Background);
    until("the content", || b.store.is_complete(&content)).await;
    assert_eq!(b.store.read(content), bytes);
    b.journal.author("answer", &[]);
    b.handle.journal_changed();
    until("the answer", || a.journal.texts().contains("answer")).await;
    assert_eq!(a.journal.entries(), b.journal.entries());
    a.handle.shutdown().await;
    until("b sees a leave", || !b.is_connected(&a.device)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_works_alone() {
    let mut first = config(1, vec![]);
    first.listen = vec![loopback("quic")];
    let a = node_with(1, first, &[1, 2], Arc::new(FakeStore::new())).await;
    let mut second = config(2, vec![a.addr()]);
    second.listen = vec![loopback("quic")];
    let b = node_with(2, second, &[1, 2], Arc::new(FakeStore::new())).await;
    connected(&a, &b).await;
    let content = a.save("scene", &Rng::new(3).bytes(400_000));
    b.handle.want(vec![content], Priority::Background);
    until("the content", || b.store.is_complete(&content)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_crosses_a_device_in_the_middle() {
    let b = node(2, &[1, 2, 3], vec![]).await;
    // The ends do not listen where anybody could reach them: a closed port of their own.
    let a = node(1, &[1, 2], vec![b.addr()]).await;
    let c = node(3, &[2, 3], vec![b.addr()]).await;
    connected(&a, &b).await;
    connected(&b, &c).await;
    a.save("from a", b"bytes");
    until("a's entry at c", || c.journal.texts().contains("from a")).await;
    c.save("from c", b"other bytes");
    until("c's entry at a", || a.journal.texts().contains("from c")).await;
    assert!(!a.is_connected(&c.device));
    assert_eq!(a.journal.entries(), c.journal.entries());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_tell_each_other_where_the_third_is() {
    let b = node(2, &[1, 2, 3], vec![]).await;
    let a = node(1, &[1, 2, 3], vec![b.addr()]).await;
    connected(&a, &b).await;
    let c = node(3, &[1, 2, 3], vec![b.addr()]).await;
    connected(&a, &c).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_from_a_device_that_has_them_when_the_first_asked_has_not() {
    let members = [1, 2, 3];
    let a = node(1, &members, vec![]).await;
    let b = node(2, &members, vec![a.addr()]).await;
    let c = node(3, &members, vec![a.addr(), b.addr()]).await;
    connected(&a, &c).await;
    connected(&b, &c).await;
    let content = b.save("only b has it", &Rng::new(4).bytes(500_000));
    c.handle.want(vec![content], Priority::Background);
    until("the content", || c.store.is_complete(&content)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_appears_later_is_fetched_when_its_holder_says_so() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    connected(&a, &b).await;
    let bytes = Rng::new(5).bytes(200_000);
    let content = FakeStore::new().write(&bytes);
    b.handle.want(vec![content], Priority::Background);
    until("a was asked", || a.store.given.load(Ordering::Relaxed) > 0).await;
    let asked = Instant::now();
    a.save("now it is here", &bytes);
    assert!(a.update_holds());
    until("the content", || b.store.is_complete(&content)).await;
    assert!(
        asked.elapsed() < Duration::from_millis(1500),
        "waited for a retry instead of the news"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_reader_gets_its_chunk_or_a_reason() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![]).await;
    let content = a.store.write(b"one small file");
    let id = content.id.root();
    let alone = b.handle.fetch_now(vec![id], WAIT).await;
    assert_eq!(alone, Err(FetchError::NobodyConnected));
    b.handle.dial(a.addr());
    connected(&a, &b).await;
    // Greeted there and known to the fetching task here are two moments.
    let mut result = b.handle.fetch_now(vec![id], WAIT).await;
    while result == Err(FetchError::NobodyConnected) {
        tokio::task::yield_now().await;
        result = b.handle.fetch_now(vec![id], WAIT).await;
    }
    assert_eq!(result, Ok(()));
    assert_eq!(b.store.read(content), b"one small file");
    let nowhere = FakeStore::new().write(b"nobody has this").id.root();
    let result = b.handle.fetch_now(vec![nowhere], WAIT).await;
    assert_eq!(result, Err(FetchError::NobodyHasIt));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_small_files_take_few_requests() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    connected(&a, &b).await;
    let contents: Vec<Content> =
        (0..10_000u32).map(|n| a.store.write(format!("file {n}").as_bytes())).collect();
    let sent = a.handle.peers()[0].received;
    b.handle.want(contents.clone(), Priority::Background);
    until("all files", || contents.iter().all(|c| b.store.is_complete(c))).await;
    let requests = a.handle.peers()[0].received - sent;
    // 32 bytes an id and little else: had each file its own request, its frame alone would be more.
    assert!(requests < 10_000 * 36, "{requests} bytes of requests");
    assert_eq!(b.store.put.load(Ordering::Relaxed), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_transfer_resumes_with_what_is_lacking() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    connected(&a, &b).await;
    let bytes = Rng::new(6).bytes(48 << 20);
    let content = a.save("large", &bytes);
    b.handle.want(vec![content], Priority::Background);
    until("a part", || b.store.put.load(Ordering::Relaxed) > 200).await;
    a.handle.shutdown().await;
    until("cut", || !b.is_connected(&a.device)).await;
    assert!(!b.store.is_complete(&content), "nothing was left to cut");
    let again = node_on(1, config(1, vec![b.addr()]), a.journal.clone(), a.store.clone()).await;
    connected(&again, &b).await;
    until("the rest", || b.store.is_complete(&content)).await;
    assert_eq!(b.store.read(content), bytes);
    let chunks = a.store.store.usage().chunks;
    let put = b.store.put.load(Ordering::Relaxed) as u64;
    assert!(put < chunks + chunks / 2, "{put} chunks came over for {chunks}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_book_finds_a_member_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("addresses");
    let a = node(1, &[1, 2], vec![]).await;
    let mut first = config(2, vec![a.addr()]);
    first.addresses_file = Some(file.clone());
    let b = node_with(2, first.clone(), &[1, 2], Arc::new(FakeStore::new())).await;
    connected(&a, &b).await;
    b.handle.shutdown().await;
    first.peers = Vec::new();
    let again = node_with(2, first, &[1, 2], Arc::new(FakeStore::new())).await;
    connected(&a, &again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_dials_leave_one_session() {
    let listen: Multiaddr = loopback("tcp");
    let a = node(1, &[1, 2], vec![]).await;
    let mut other = config(2, vec![a.addr()]);
    other.listen = vec![listen];
    let b = node_with(2, other, &[1, 2], Arc::new(FakeStore::new())).await;
    a.handle.dial(b.addr());
    connected(&a, &b).await;
    for n in 0..20 {
        a.journal.author(&format!("a{n}"), &[]);
        a.handle.journal_changed();
        b.journal.author(&format!("b{n}"), &[]);
        b.handle.journal_changed();
    }
    until("all entries", || {
        a.journal.entries() == b.journal.entries() && a.journal.texts().len() >= 40
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_barrier_returns_when_everything_is_everywhere() {
    let mut a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    connected(&a, &b).await;
    assert_eq!(a.events.recv().await, Some(Event::Listening(a.addr())));
    let content = a.save("scene", &Rng::new(7).bytes(100_000));
    b.journal.author("of b, not pushed yet", &[]);
    a.update_holds();
    let behind = a.handle.sync_barrier(Duration::from_millis(100)).await;
    assert_eq!(behind.behind, vec![b.device], "b lacks the content");
    let barrier = tokio::spawn({
        let handle = a.handle.clone();
        async move { handle.sync_barrier(WAIT).await }
    });
    b.handle.journal_changed();
    b.handle.want(vec![content], Priority::Background);
    until("both hold everything", || {
        let all = b.store.is_complete(&content) && a.journal.covers(&b.journal.frontier());
        all && a.update_holds() && b.update_holds()
    })
    .await;
    let synced = barrier.await.unwrap();
    assert_eq!(synced.reached, vec![b.device]);
    assert!(synced.is_complete());
    until("in sync", || {
        // An entry about the reconnection may still have come since.
        let held = a.update_holds() && b.update_holds();
        held && a.handle.peers()[0].in_sync && b.handle.peers()[0].in_sync
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_is_on_the_wire_at_once() {
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    connected(&a, &b).await;
    a.journal.author("warm up", &[]);
    a.handle.journal_changed();
    until("warm up", || b.journal.texts().contains("warm up")).await;
    let mut times = Vec::new();
    for n in 0..50 {
        let text = format!("entry {n}");
        let batches = b.journal.received_batches();
        a.journal.author(&text, &[]);
        let start = Instant::now();
        a.handle.journal_changed();
        while b.journal.received_batches() == batches {
            assert!(start.elapsed() < WAIT);
            tokio::task::yield_now().await;
        }
        times.push(start.elapsed());
    }
    times.sort();
    eprintln!("from change to the other's journal: median {:?}, worst {:?}", times[25], times[49]);
    // A timer or Nagle in between would show as 40 ms or more in every single one.
    assert!(times[25] < Duration::from_millis(20), "median {:?}", times[25]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_over_in_few_requests() {
    let len: usize =
        std::env::var("NET_BENCH_MIB").ok().and_then(|v| v.parse().ok()).unwrap_or(16) << 20;
    let a = node(1, &[1, 2], vec![]).await;
    let b = node(2, &[1, 2], vec![a.addr()]).await;
    connected(&a, &b).await;
    let content = a.store.write(&Rng::new(2).bytes(len));
    let start = Instant::now();
    b.handle.want(vec![content], Priority::Background);
    until("the content", || b.store.is_complete(&content)).await;
    let took = start.elapsed();
    eprintln!("{len} bytes in {took:?}: {:.0} MB/s", len as f64 / 1e6 / took.as_secs_f64());
    let overhead = b.handle.peers()[0].received - len as u64;
    assert!(overhead < len as u64 / 100, "{overhead} bytes beside the content");
}
