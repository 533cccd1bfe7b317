use super::*;
use redan_policy::grant::Destination;
use redan_protocol::{ByteCount, Millis};

fn quota(bytes: u64, messages: u32) -> Quota {
    Quota {
        id: "cloud".into(),
        to: Destination::Http("cloud".into()),
        bytes: ByteCount::new(bytes),
        messages,
        max_age: Millis::seconds(60),
    }
}

fn item(payload: &[u8]) -> Item {
    Item {
        at: 1000,
        target: "https://api.example/v1".into(),
        content_type: "text/plain".into(),
        dedup: String::new(),
        payload: payload.to_vec(),
    }
}

fn all(queue: &Queue) -> Vec<(u64, Vec<u8>)> {
    let mut found = vec![];
    let mut last = 0;
    while let Some((id, item)) = queue.after(last).unwrap() {
        found.push((id, item.payload));
        last = id;
    }
    found
}

#[test]
fn items_come_back_in_order_after_a_restart_and_numbers_are_never_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let wide = quota(1 << 20, 100);
    {
        let queue = Queue::open(&path).unwrap();
        for n in 1..=3_u8 {
            assert_eq!(queue.push(&wide, item(&[n])).unwrap(), u64::from(n));
        }
        queue.done(1).unwrap();
        queue.done(3).unwrap();
        queue.done(77).unwrap();
    }
    let queue = Queue::open(&path).unwrap();
    assert_eq!(all(&queue), [(2, vec![2])]);
    assert_eq!(queue.push(&wide, item(&[4])).unwrap(), 4);
    assert_eq!(queue.depth(), 2);
}

#[test]
fn a_record_torn_at_any_byte_is_cut_off_and_nothing_before_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let wide = quota(1 << 20, 100);
    let whole = {
        let queue = Queue::open(&path).unwrap();
        queue.push(&wide, item(b"first")).unwrap();
        let before = std::fs::metadata(&path).unwrap().len();
        queue.push(&wide, item(b"second")).unwrap();
        (before, std::fs::read(&path).unwrap())
    };
    for cut in usize::try_from(whole.0).unwrap()..whole.1.len() {
        std::fs::write(&path, &whole.1[..cut]).unwrap();
        let queue = Queue::open(&path).unwrap();
        assert_eq!(all(&queue), [(1, b"first".to_vec())], "cut at {cut}");
        assert_eq!(queue.push(&wide, item(b"again")).unwrap(), 2);
        drop(queue);
        assert_eq!(all(&Queue::open(&path).unwrap()).len(), 2);
    }
    // Bytes that changed on the disk are as good as torn.
    let mut changed = whole.1.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &changed).unwrap();
    assert_eq!(all(&Queue::open(&path).unwrap()), [(1, b"first".to_vec())]);
}

#[test]
fn an_outbox_is_full_at_its_bytes_and_at_its_items() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(&folder.path().join("queue")).unwrap();
    let one = item(&[0; 100]).weight();
    let narrow = quota(one * 2, 100);
    queue.push(&narrow, item(&[0; 100])).unwrap();
    queue.push(&narrow, item(&[0; 100])).unwrap();
    let refused = queue.push(&narrow, item(&[])).unwrap_err();
    assert_eq!(refused.code(), Code::OutboxFull);
    queue.done(1).unwrap();
    queue.push(&narrow, item(&[0; 100])).unwrap();
    assert_eq!(
        queue.push(&quota(1 << 20, 2), item(&[])).unwrap_err().code(),
        Code::OutboxFull
    );
}

#[test]
fn what_waits_under_the_same_name_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(&folder.path().join("queue")).unwrap();
    let named = || Item {
        dedup: "reading-7".into(),
        ..item(b"21.5")
    };
    let wide = quota(1 << 20, 1);
    assert_eq!(queue.push(&wide, named()).unwrap(), 1);
    assert_eq!(
        queue.push(&wide, named()).unwrap(),
        1,
        "even when the outbox is full"
    );
    queue.done(1).unwrap();
    assert_eq!(
        queue.push(&wide, named()).unwrap(),
        2,
        "once it is sent, it is another"
    );
}

#[test]
fn a_file_that_is_mostly_history_is_rewritten_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let queue = Queue::open(&path).unwrap();
    let wide = quota(1 << 30, 1000);
    queue.push(&wide, item(b"stays")).unwrap();
    for _ in 0..40 {
        let id = queue.push(&wide, item(&vec![7; 20_000])).unwrap();
        queue.done(id).unwrap();
    }
    assert!(std::fs::metadata(&path).unwrap().len() < 2 * SLACK);
    assert_eq!(all(&queue), [(1, b"stays".to_vec())]);
    drop(queue);
    let queue = Queue::open(&path).unwrap();
    assert_eq!(all(&queue), [(1, b"stays".to_vec())]);
    assert_eq!(queue.push(&wide, item(b"next")).unwrap(), 42);
}

#[test]
fn old_items_are_found_by_when_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(&folder.path().join("queue")).unwrap();
    let wide = quota(1 << 20, 10);
    for at in [10, 20, 30] {
        queue.push(&wide, Item { at, ..item(b"") }).unwrap();
    }
    assert_eq!(queue.older(20), [1]);
    assert_eq!(queue.older(31), [1, 2, 3]);
}

#[test]
fn outboxes_of_one_name_are_one_for_each_workload() {
    let folder = tempfile::tempdir().unwrap();
    let outboxes = Outboxes::new(folder.path().to_owned());
    let [a, b] = ["a", "b"].map(|workload| outboxes.queue(workload, "cloud").unwrap());
    a.push(&quota(1 << 20, 100), item(b"mine")).unwrap();
    assert_eq!((a.depth(), b.depth()), (1, 0));
    assert_eq!(outboxes.queue("a", "cloud").unwrap().depth(), 1);
    assert_eq!(outboxes.queue("a", "other").unwrap().depth(), 0);
}
