//! Pictures as networks see them, and files that are none.

use std::io::Cursor;

use ::image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, Rgba, RgbaImage};

use super::*;
use crate::models::efficientnet::Filter;

fn preprocessing(size: usize, resize: usize, crop: Crop) -> Preprocessing {
    Preprocessing {
        size,
        resize,
        crop,
        filter: Filter::Bicubic,
        mean: [0.0, 100.0, 127.0],
        deviation: [1.0, 2.0, 128.0],
    }
}

/// Red counts columns, green rows.
fn numbered(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]))
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn the_middle_is_cut_out() {
    // Sizes that need no resizing show which pixels are taken.
    let before = square(&numbered(12, 8), &preprocessing(4, 8, Crop::BeforeResize));
    assert_eq!(before.dimensions(), (4, 4));
    assert_eq!(before.get_pixel(0, 0), &Rgb([4, 2, 7]));
    assert_eq!(before.get_pixel(3, 3), &Rgb([7, 5, 7]));
    let after = square(&numbered(13, 8), &preprocessing(4, 8, Crop::AfterResize));
    assert_eq!(after.dimensions(), (4, 4));
    // torchvision's CenterCrop, int(round((13 - 4) / 2.0)): half a pixel goes to where the number is even.
    assert_eq!(after.get_pixel(0, 0), &Rgb([4, 2, 7]));
    let after = square(&numbered(15, 8), &preprocessing(4, 8, Crop::AfterResize));
    assert_eq!(after.get_pixel(0, 0), &Rgb([6, 2, 7]));
    // TensorFlow's always goes to the right.
    let before = square(&numbered(13, 8), &preprocessing(4, 8, Crop::BeforeResize));
    assert_eq!(before.get_pixel(0, 0), &Rgb([5, 2, 7]));
    let upright = square(&numbered(8, 12), &preprocessing(4, 8, Crop::AfterResize));
    assert_eq!(upright.get_pixel(0, 0), &Rgb([2, 4, 7]));
}

/// A photograph of the usual size, 500 x 375: of the 341 columns that it is resized to 117 are too many, and
/// torchvision cuts at 58.
#[test]
fn photographs_are_cut_where_torchvision_cuts_them() {
    let picture = RgbImage::from_fn(500, 375, |x, y| Rgb([(x % 251) as u8, (y % 241) as u8, 7]));
    let preprocessing = preprocessing(224, 256, Crop::AfterResize);
    let resized = resize(&picture, &Part::all([341, 256]), Filter::Bicubic);
    let expected = imageops::crop_imm(&resized, 58, 16, 224, 224).to_image();
    assert!(square(&picture, &preprocessing) == expected);
}

/// Columns of two colours that only the whole picture has in equal parts.
#[test]
fn nothing_is_cut_off_a_whole_picture() {
    let picture = RgbImage::from_fn(64, 8, |x, _| Rgb([if x < 32 { 0 } else { 200 }, 0, 0]));
    let whole = square(&picture, &preprocessing(8, 8, Crop::Whole));
    let row: Vec<u8> = (0..8).map(|x| whole.get_pixel(x, 4)[0]).collect();
    // Whole columns of one colour at both ends, but for the cubic's overshoot; none where the middle is cut out.
    let near = |found: u8, wanted: u8| found.abs_diff(wanted) <= 4;
    assert!(row[..3].iter().all(|&red| near(red, 0)), "{row:?}");
    assert!(row[5..].iter().all(|&red| near(red, 200)), "{row:?}");
}

#[test]
fn any_shape_becomes_a_square() {
    for (width, height) in [(1, 1), (1, 500), (3000, 2), (2, 3), (640, 480)] {
        for crop in [Crop::AfterResize, Crop::BeforeResize, Crop::Whole] {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let preprocessing = Preprocessing {
                    filter,
                    ..preprocessing(8, 9, crop)
                };
                let square = square(&numbered(width, height), &preprocessing);
                assert_eq!(square.dimensions(), (8, 8), "{width} x {height}");
            }
        }
    }
    // One colour stays one colour, whatever the filter.
    let plain = RgbImage::from_pixel(50, 40, Rgb([10, 20, 30]));
    let small = square(&plain, &preprocessing(8, 9, Crop::AfterResize));
    assert!(small.pixels().all(|pixel| pixel == &Rgb([10, 20, 30])));
}

#[test]
fn values_are_normalized_and_colours_are_three() {
    let preprocessing = preprocessing(2, 2, Crop::AfterResize);
    let color = RgbImage::from_pixel(2, 2, Rgb([200, 100, 255]));
    let expected = [200.0, 0.0, 1.0].repeat(4);
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        assert_eq!(
            input(&encoded(color.clone(), format), &preprocessing).unwrap(),
            expected
        );
    }
    let see_through = RgbaImage::from_pixel(2, 2, Rgba([200, 100, 255, 3]));
    let bytes = encoded(see_through, ImageFormat::Png);
    assert_eq!(input(&bytes, &preprocessing).unwrap(), expected);
    let grey = GrayImage::from_pixel(2, 2, Luma([127]));
    let found = input(&encoded(grey.clone(), ImageFormat::Png), &preprocessing).unwrap();
    assert_eq!(found[..3], [127.0, 13.5, 0.0]);
    // JPEG rounds.
    let found = input(&encoded(grey, ImageFormat::Jpeg), &preprocessing).unwrap();
    assert!((found[0] - 127.0).abs() <= 2.0);
}

#[test]
fn pixels_are_treated_as_those_of_a_file() {
    let picture = numbered(23, 17);
    let preprocessing = preprocessing(8, 9, Crop::AfterResize);
    let pixels: Vec<u8> = (picture.pixels())
        .flat_map(|&Rgb([r, g, b])| [r, g, b, 3])
        .collect();
    assert_eq!(
        input_of_pixels([23, 17], &pixels, &preprocessing).unwrap(),
        input(&encoded(picture, ImageFormat::Png), &preprocessing).unwrap()
    );
    for (size, len, words) in [
        (
            [23, 17],
            23 * 17 * 3,
            "1173 bytes where 23 x 17 pixels have 1564",
        ),
        ([23, 0], 0, "0 pixels"),
        ([40_000, 1], 160_000, "larger than 32768 x 32768"),
        ([30_000, 30_000], 0, "900000000 pixels"),
        ([u32::MAX, u32::MAX], 4, "larger than 32768 x 32768"),
    ] {
        let error = input_of_pixels(size, &vec![0; len], &preprocessing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains(words), "{error}");
    }
}

fn fails(bytes: &[u8], words: &str) {
    let error = input(bytes, &preprocessing(2, 2, Crop::AfterResize)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains(words), "{error}: {words}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn what_is_no_picture_is_refused() {
    fails(b"", "not a picture");
    fails(b"once upon a time", "not a picture in JPEG, PNG or WebP");
    fails(
        b"GIF89a\x01\0\x01\0\0\0\0",
        "not a picture in JPEG, PNG or WebP",
    );
    let png = encoded(numbered(20, 20), ImageFormat::Png);
    for len in [8, 20, 33, 50] {
        fails(&png[..len], "");
    }
}

/// CRC-32 of a PNG's chunk.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

/// A few bytes may not ask for gigabytes.
#[test]
fn pictures_that_lie_about_their_size_are_refused() {
    let small = encoded(numbered(4, 4), ImageFormat::Png);
    for (width, height, words) in [
        (40_000u32, 1u32, "larger than 32768 x 32768"),
        (1, 40_000, "larger than 32768 x 32768"),
        (u32::MAX >> 1, u32::MAX >> 1, ""),
        (30_000, 30_000, "900000000 pixels"),
        (10_000, 10_000, "100000000 pixels"),
        (0, 4, ""),
    ] {
        let mut bytes = small.clone();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        fails(&bytes, words);
    }
    // Within the limits, but without the pixels.
    let mut bytes = small.clone();
    bytes[16..20].copy_from_slice(&4000u32.to_be_bytes());
    let sum = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    fails(&bytes, "damaged");
}

/// Two frames (Pillow, 1 x 1 pixel): the first is the picture, if it is not too large with all that goes with it.
#[test]
fn animations_are_their_first_frame() {
    let hex = "524946468a00000057454250565038580a00000002000000000000000000414e494d06000000000000000000414e4d46\
               2a0000000000000000000000000000000a0000025650384c110000002f0000000007508426f4a0ff8188e87f0000414e\
               4d462c0000000000000000000000000000000a0000005650384c140000002f00000000075081540820000a9afec78888\
               fe07";
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let mut bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
    let first = decode(&bytes).unwrap();
    assert_eq!(first.dimensions(), (1, 1));
    assert_eq!(first.as_raw()[..], [9, 8, 7]);
    for side in [24, 27] {
        bytes[side..side + 3].copy_from_slice(&8191u32.to_le_bytes()[..3]);
    }
    fails(&bytes, "would take 768 MiB; the limit is 512");
}

#[test]
fn damaged_pictures_do_not_panic() {
    let preprocessing = preprocessing(4, 5, Crop::AfterResize);
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let good = encoded(numbered(9, 7), format);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            if let Err(error) = input(&bad, &preprocessing) {
                assert_eq!(error.to_string().lines().count(), 1);
            }
            let _ = input(&good[..at], &preprocessing);
        }
    }
}

/// What training sees: the same as `input`, mirrored, or a part.
#[cfg(feature = "train")]
#[test]
fn views_are_parts_and_may_be_mirrored() {
    let preprocessing = preprocessing(4, 4, Crop::AfterResize);
    let bytes = encoded(numbered(8, 4), ImageFormat::Png);
    let of = |part, flip| view(&bytes, View { part, flip }, &preprocessing).unwrap();
    let whole = input(&bytes, &preprocessing).unwrap();
    assert_eq!(of(None, false), whole);
    let mirrored = of(None, true);
    for (row, mirrored) in whole.chunks(12).zip(mirrored.chunks(12)) {
        let pixels = mirrored.chunks(3).rev().flatten().copied();
        assert_eq!(pixels.collect::<Vec<_>>(), row);
    }
    // The middle half of the width is what the network takes of this picture.
    assert_eq!(of(Some([0.25, 0.0, 0.5, 1.0]), false), whole);
    assert_ne!(of(Some([0.0, 0.0, 0.5, 1.0]), false), whole);
    // Beyond the border and below a pixel something is left to see.
    for part in [
        [0.99, 0.99, 0.5, 0.5],
        [1.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 1e-9, 1e-9],
    ] {
        assert_eq!(of(Some(part), false).len(), whole.len());
    }
}
