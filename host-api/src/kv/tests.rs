use super::*;
use redan_protocol::ByteCount;

fn quota(bytes: u64, keys: u32) -> Quota {
    Quota {
        label: "default".to_owned(),
        bytes: ByteCount::new(bytes),
        keys,
        ops: None,
    }
}

fn set(key: &str, value: &[u8]) -> Operation {
    Operation::Set(key.to_owned(), value.to_vec())
}

#[test]
fn what_was_stored_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let bucket = Bucket::open(&path).unwrap();
    bucket
        .change(&quota(1000, 10), vec![set("a", b"1"), set("b", b"2")])
        .unwrap();
    bucket
        .change(&quota(1000, 10), vec![Operation::Delete("a".to_owned())])
        .unwrap();
    assert_eq!(
        bucket.increment(&quota(1000, 10), "n".to_owned(), 41).unwrap(),
        41
    );
    assert_eq!(bucket.increment(&quota(1000, 10), "n".to_owned(), 1).unwrap(), 42);
    drop(bucket);
    let bucket = Bucket::open(&path).unwrap();
    assert_eq!(bucket.keys(0), (vec!["b".to_owned(), "n".to_owned()], None));
    assert_eq!(bucket.get("b"), Some(b"2".to_vec()));
    assert_eq!(bucket.increment(&quota(1000, 10), "n".to_owned(), 0).unwrap(), 42);
}

#[test]
fn power_cut_at_any_byte_leaves_whole_changes_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let bucket = Bucket::open(&path).unwrap();
    bucket.change(&quota(1000, 10), vec![set("a", b"old")]).unwrap();
    let first = std::fs::read(&path).unwrap().len();
    bucket
        .change(&quota(1000, 10), vec![set("a", b"new"), set("b", b"new")])
        .unwrap();
    drop(bucket);
    let whole = std::fs::read(&path).unwrap();
    for cut in first..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let bucket = Bucket::open(&path).unwrap();
        assert_eq!(bucket.get("a"), Some(b"old".to_vec()), "cut at {cut}");
        assert!(!bucket.exists("b"));
        // And it goes on from there.
        bucket.change(&quota(1000, 10), vec![set("c", b"later")]).unwrap();
        drop(bucket);
        assert_eq!(Bucket::open(&path).unwrap().get("c"), Some(b"later".to_vec()));
    }
}

#[test]
fn the_quota_counts_bytes_and_keys_of_the_moment_after() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&folder.path().join("b")).unwrap();
    bucket.change(&quota(100, 1), vec![set("a", &[0; 83])]).unwrap();
    let over = |result: Result<(), KvError>| matches!(result, Err(KvError::Quota));
    assert!(over(bucket.change(&quota(100, 1), vec![set("a", &[0; 84])])));
    assert!(over(bucket.change(&quota(1000, 1), vec![set("b", b"")])));
    // Replacing in one batch is allowed; so is shrinking under a quota that became smaller.
    let swap = vec![Operation::Delete("a".to_owned()), set("b", &[0; 83])];
    bucket.change(&quota(100, 1), swap).unwrap();
    bucket.change(&quota(10, 1), vec![set("b", b"x")]).unwrap();
    assert!(over(bucket.change(
        &quota(1 << 20, 10),
        vec![set(&"k".repeat(KEY_LEN_MAX + 1), b"")]
    )));
}

#[test]
fn a_file_of_history_is_rewritten_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    let bucket = Bucket::open(&path).unwrap();
    bucket
        .change(&quota(1 << 20, 10), vec![set("kept", b"yes")])
        .unwrap();
    for round in 0..10_u8 {
        bucket
            .change(&quota(1 << 20, 10), vec![set("a", &vec![round; 40_000])])
            .unwrap();
    }
    assert!(std::fs::metadata(&path).unwrap().len() < 10 * 40_000);
    drop(bucket);
    let bucket = Bucket::open(&path).unwrap();
    assert_eq!(bucket.get("kept"), Some(b"yes".to_vec()));
    assert_eq!(bucket.get("a"), Some(vec![9; 40_000]));
}

#[test]
fn keys_come_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&folder.path().join("b")).unwrap();
    let many = (0..=PAGE_LEN).map(|n| set(&format!("{n:04}"), b"")).collect();
    bucket.change(&quota(1 << 20, 10_000), many).unwrap();
    let (first, next) = bucket.keys(0);
    assert_eq!((first.len(), next), (PAGE_LEN, Some(256)));
    assert_eq!(bucket.keys(256), (vec!["0256".to_owned()], None));
}

#[test]
fn buckets_of_one_label_are_one_for_each_workload() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::new(folder.path().to_owned());
    let [a, b] = ["a", "b"].map(|workload| stores.bucket(workload, "default").unwrap());
    a.change(&quota(1000, 10), vec![set("key", b"mine")]).unwrap();
    assert_eq!(b.get("key"), None);
    let again = stores.bucket("a", "default").unwrap();
    assert_eq!(again.get("key"), Some(b"mine".to_vec()));
    assert_eq!(stores.bucket("a", "other").unwrap().get("key"), None);
}
