//! Sound pictures of all kinds, and what damages them.

use std::io::Cursor;

use ::image::{ImageFormat, Rgb};

use super::*;

/// Ten scans, colours at half the size (Pillow, 19 x 11 pixels, as the others).
const PROGRESSIVE: &str = "\
    ffd8ffe000104a46494600010100000100010000ffdb004300140e0f120f0d14121012171514181e32211e1c1c1e3d2c2e24 \
    3249404c4b47404645505a736250556d5645466488656d777b8182814e608d978c7d96737e817cffdb0043011517171e1a1e \
    3b21213b7c5346537c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c \
    7c7c7c7c7c7c7c7cffc2001108000b001303012200021101031101ffc4001700010101010000000000000000000000000400 \
    0305ffc400160101010100000000000000000000000000040203ffda000c0301000210031000000116cb41f315d3a99fffc4 \
    001810010101010100000000000000000000000001031113ffda000801010001050299a66f34891c7fffc400171100030100 \
    00000000000000000000000000010313ffda0008010301013f019d99b33fffc4001711000301000000000000000000000000 \
    0001021011ffda0008010201013f010db3ffc40014100100000000000000000000000000000020ffda0008010100063f025f \
    ffc400191001000203000000000000000000000000000151116171ffda0008010100013f215adca2a454c29fffda000c0301 \
    0002000300000010440fffc4001511010100000000000000000000000000000001ffda0008010301013f1048ff00ffc40016 \
    1101010100000000000000000000000000000111ffda0008010201013f10a98fffc4001a1000020203000000000000000000 \
    00000000012151101161ffda0008010100013f10e380a2280a2169503fffd9";

/// One scan with a restart marker behind each block of 16 x 16 pixels.
const RESTARTS: &str = "\
    ffd8ffe000104a46494600010100000100010000ffdb004300140e0f120f0d14121012171514181e32211e1c1c1e3d2c2e24 \
    3249404c4b47404645505a736250556d5645466488656d777b8182814e608d978c7d96737e817cffdb0043011517171e1a1e \
    3b21213b7c5346537c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c \
    7c7c7c7c7c7c7c7cffc0001108000b001303012200021101031101ffc4001800000203000000000000000000000000000005 \
    020406ffc4001f1000020103050100000000000000000000000301020552112122326162ffc4001601010101000000000000 \
    00000000000000050304ffc400191100020301000000000000000000000000000201030411ffdd00040001ffda000c030100 \
    02110311003f004a9b7785d4db7e46a95d38c0c12ba3180f5b658866d8c7ffd08c5b36ea069a174691c600c7c108dae7ffd9";

/// Four inks.
const CMYK: &str = "\
    ffd8ffee000e41646f626500640000000000ffdb004300140e0f120f0d14121012171514181e32211e1c1c1e3d2c2e243249 \
    404c4b47404645505a736250556d5645466488656d777b8182814e608d978c7d96737e817cffc0001408000b001304431100 \
    4d11005911004b1100ffc4001800000301010000000000000000000000000005060407ffc400231000010204070101000000 \
    00000000000000010302040541111213153252622122ffda000e0443004d0059004b00003f009ea75859b1f9245a6f396655 \
    53ac1b1f935b5239ec03f6f8206c7e4d094ac53881cda9d62e345be886492445c00aaa758345be883f928215c3e200fdbe08 \
    1a2df441c40d41953f2807ffd9";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn encoded(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = picture.into();
    picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

fn photograph() -> RgbImage {
    RgbImage::from_fn(19, 11, |x, y| {
        Rgb([(x * 13) as u8, (y * 23) as u8, (x * y) as u8])
    })
}

/// One of each kind.
fn pictures() -> Vec<(&'static str, Vec<u8>)> {
    let grey = DynamicImage::from(photograph()).into_luma8();
    vec![
        ("baseline", encoded(photograph())),
        ("grey", encoded(grey)),
        ("progressive", bytes(PROGRESSIVE)),
        ("restarts", bytes(RESTARTS)),
        ("cmyk", bytes(CMYK)),
    ]
}

/// Where the header says height and width.
fn size_at(picture: &[u8]) -> usize {
    let at = (picture.windows(2)).position(|w| matches!(w, [0xff, 0xc0 | 0xc2]));
    at.unwrap() + 5
}

fn fails(bytes: &[u8], words: &str, what: &str) {
    let Err(error) = decode(bytes) else {
        panic!("{what}: no error");
    };
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains(words), "{what}: {error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn sound_pictures_are_those_of_the_lenient_decoder() {
    for (kind, good) in pictures() {
        let expected = ::image::load_from_memory(&good).unwrap().into_rgb8();
        let same = |bytes: &[u8], what: &str| {
            let found = decode(bytes).unwrap_or_else(|e| panic!("{kind}, {what}: {e}"));
            assert!(found == expected, "{kind}, {what}");
        };
        same(&good, "as it is");
        same(&[&good[..], &good[..]].concat(), "another one behind it");
        // A comment with a whole picture, as a camera's thumbnail.
        let length = (good.len() as u16 + 2).to_be_bytes();
        let thumbnail = [&good[..2], &[0xff, 0xfe], &length, &good, &good[2..]].concat();
        same(&thumbnail, "with a thumbnail");
        let odd = [&good[..2], b"some bytes", &good[2..]].concat();
        same(&odd, "with bytes between headers");
        let filled = [&good[..good.len() - 2], &[0xff, 0xff, 0xff, 0xd9]].concat();
        same(&filled, "filled up before its end");
        let end = &good[..good.len() - 2];
        match kind {
            "progressive" => fails(end, "damaged", kind),
            _ => same(end, "without a mark of its end"),
        }
    }
}

#[test]
fn pictures_that_end_early_are_refused() {
    for (kind, good) in pictures() {
        // Of the last two bytes of data not all bits need be used.
        for len in 2..good.len() - 4 {
            let what = format!("{kind}, {len} of {} bytes", good.len());
            fails(&good[..len], "damaged", &what);
            if kind != "progressive" {
                // The mark of the end does not make it a whole picture.
                let closed = [&good[..len], &[0xff, 0xd9]].concat();
                fails(&closed, "damaged", &what);
            }
        }
    }
}

#[test]
fn pictures_that_claim_more_pixels_than_they_have_are_refused() {
    for (kind, good) in pictures() {
        let at = size_at(&good);
        for (width, height, words) in [
            (19u16, 27u16, "damaged"),
            (35, 11, "damaged"),
            (19, 1000, "damaged"),
            (1000, 1000, "damaged"),
            (0, 11, "damaged"),
            (40_000, 1, "larger than 32768 x 32768"),
            (1, 40_000, "larger than 32768 x 32768"),
            (30_000, 30_000, "900000000 pixels"),
        ] {
            let mut lie = good.clone();
            lie[at..at + 2].copy_from_slice(&height.to_be_bytes());
            lie[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
            fails(&lie, words, &format!("{kind}, {width} x {height}"));
        }
    }
}

/// As many pixels as there may be, each with coefficients for three colours.
#[test]
fn large_progressive_pictures_are_refused() {
    let mut large = bytes(PROGRESSIVE);
    let at = size_at(&large);
    for side in [at, at + 2] {
        large[side..side + 2].copy_from_slice(&8192u16.to_be_bytes());
    }
    fails(
        &large,
        "would take 576 MiB; the limit is 512",
        "8192 x 8192",
    );
}
