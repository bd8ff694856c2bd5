//! Unsupported features are refused by name when a file is opened, and never reported as damage.
//! Damaged files are reported as damaged.

use super::*;

fn counting() -> PageSpec {
    PageSpec::counting(16, 16, 0)
}

#[test]
fn a_compression_that_is_not_read_is_named_with_the_way_out() {
    let folder = Folder::new();
    for (code, name) in [
        (34712, "JPEG 2000"),
        (34887, "LERC"),
        (50001, "WebP"),
        (6, "old-style JPEG"),
        (3, "CCITT group 3"),
        (12345, "compression 12345"),
    ] {
        let page = PageSpec { compression: code, ..counting() };
        let error = refusal(&folder.pages("a.tif", &[counting(), page]));
        assert!(error.contains(name) && error.contains("deflate"), "{error}");
        assert!(error.contains("page 2") && !error.contains("damaged"), "{error}");
    }
}

#[test]
fn samples_and_interpretations_that_are_not_read_are_named() {
    let folder = Folder::new();
    let refused = |page: PageSpec| {
        let error = refusal(&folder.pages("a.tif", &[page]));
        assert!(!error.contains("damaged"), "{error}");
        error
    };
    let complex = PageSpec { bits: 64, format: 6, ..counting() };
    assert!(refused(complex).contains("complex"));
    assert!(refused(PageSpec { bits: 24, format: 3, ..counting() }).contains("24 bits"));
    assert!(refused(PageSpec { bits: 12, format: 2, ..counting() }).contains("12 bits"));
    assert!(refused(PageSpec { interpretation: 6, ..counting() }).contains("YCbCr"));
    let odd = vec![(317, SHORT, vec![34892])];
    assert!(refused(PageSpec { more: odd, ..counting() }).contains("predictor 34892"));
    let jpeg = PageSpec { compression: 7, ..counting() };
    assert!(refused(jpeg).contains("JPEG of 16 bits"));
    let stk = vec![(33629, 5, vec![1; 8])];
    assert!(refused(PageSpec { more: stk, ..counting() }).contains("MetaMorph"));
    let uneven = vec![(258, SHORT, vec![8, 16])];
    let uneven = PageSpec { size: [8, 16, 2], more: uneven, ..counting() };
    assert!(refused(uneven).contains("different sizes"));
}

#[test]
fn pages_that_differ_are_named_by_number() {
    let folder = Folder::new();
    let error =
        refusal(&folder.pages("a.tif", &[counting(), counting(), PageSpec::counting(8, 16, 0)]));
    assert!(
        error.contains("page 3") && error.contains("8 x 16") && error.contains("16 x 16"),
        "{error}"
    );
    let bytes = PageSpec { bits: 8, ..counting() };
    let error = refusal(&folder.pages("a.tif", &[counting(), bytes]));
    assert!(error.contains("page 2") && error.contains("uint8"), "{error}");
}

#[test]
fn smaller_copies_among_the_pages_are_left_out() {
    let folder = Folder::new();
    let copy = PageSpec { more: vec![(254, LONG, vec![1])], ..PageSpec::counting(8, 8, 0) };
    let location = folder.pages("a.tif", &[counting(), copy.clone(), counting(), copy]);
    assert_eq!(open(&location).unwrap().grid().shape, [2, 16, 16]);
}

#[test]
fn a_file_cut_anywhere_says_that_it_is_truncated() {
    let folder = Folder::new();
    for big in [false, true] {
        let pages = [counting(), PageSpec { compression: 8, ..counting() }, counting()];
        let bytes = file(&pages, ByteOrder::Little, big);
        for length in (8..bytes.len()).step_by(7) {
            let error = refusal(&folder.bytes("a.tif", &bytes[..length]));
            let words = ["truncated", "damaged", "ends", "without a page"];
            assert!(words.iter().any(|word| error.contains(word)), "{length}: {error}");
        }
    }
}

#[test]
fn claims_that_nothing_backs_are_refused_before_memory_is_asked_for() {
    let folder = Folder::new();
    let refused = |more: Vec<(u16, u16, Vec<u64>)>, compression: u64, word: &str| {
        let page = PageSpec { compression, more, ..counting() };
        let error = refusal(&folder.pages("a.tif", &[page]));
        assert!(error.contains(word), "{error}");
    };
    const MOST: u64 = u32::MAX as u64;
    for compression in [1, 5, 8, 32773, 34925, 50000] {
        let all = vec![(256, LONG, vec![MOST]), (257, LONG, vec![MOST]), (278, LONG, vec![MOST])];
        refused(all, compression, "");
        let tall = vec![(257, LONG, vec![MOST]), (278, LONG, vec![MOST])];
        refused(tall, compression, "");
        refused(vec![(257, LONG, vec![MOST])], compression, "strips");
        refused(vec![(256, LONG, vec![1 << 24])], compression, "");
    }
    refused(vec![(277, LONG, vec![MOST]), (258, SHORT, vec![8])], 1, "");
    refused(vec![(256, LONG, vec![0])], 1, "0 pixels");
    refused(vec![(278, LONG, vec![0])], 1, "no size");
    refused(vec![(273, LONG, vec![])], 1, "where its strips");
    refused(vec![(273, LONG, vec![0])], 1, "never written");
    refused(vec![(273, LONG, vec![MOST])], 1, "truncated");
    refused(vec![(279, LONG, vec![MOST])], 8, "truncated");
    refused(vec![(279, LONG, vec![0])], 8, "0 (deflate)");
}

#[test]
fn directories_that_run_in_a_circle_are_told() {
    let folder = Folder::new();
    for big in [false, true] {
        let mut bytes = file(&[counting()], ByteOrder::Little, big);
        let (word, at) = if big { (8, 8) } else { (4, 4) };
        let first = bytes[at..at + word].to_vec();
        let end = bytes.len();
        bytes[end - word..].copy_from_slice(&first);
        assert!(refusal(&folder.bytes("a.tif", &bytes)).contains("circle"));
    }
}

#[test]
fn strips_that_hold_too_little_are_damaged_and_nothing_else_is() {
    let folder = Folder::new();
    for compression in [5, 8, 32773, 34925, 50000] {
        let page = PageSpec {
            compression,
            chunk: Chunk::Strip(8),
            more: vec![(257, LONG, vec![32]), (278, LONG, vec![16])],
            ..PageSpec::counting(16, 16, 0)
        };
        let volume = open(&folder.pages("a.tif", &[page])).unwrap();
        let error = volume.read::<u16>(&volume.grid().bounds()).unwrap_err();
        assert!(matches!(error, Error::Chunk { .. }), "{error}");
    }
}
