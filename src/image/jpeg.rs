//! JPEG, of which nothing may be missing.
//!
//! Where the data of a picture ends early, decoders go on with zeros, up to whatever size its header claims. So what
//! follows the data is taken away and ones are put in its place, which no code consists of: reading on fails.

#[cfg(test)]
mod tests;

use ::image::{DynamicImage, GrayImage, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::{Error, ErrorKind, Result};

/// Ones as they stand in entropy-coded data: more than the decoder reads ahead.
const ONES: [u8; 64] = {
    let mut ones = [0; 64];
    let mut at = 0;
    while at < ones.len() {
        ones[at] = 0xff;
        at += 2;
    }
    ones
};
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const PROGRESSIVE: u8 = 0xc2;

/// # Errors
/// [`ErrorKind::Input`] if the picture is too large, damaged, or has fewer pixels than it says.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let told = |e: DecodeErrors| {
        let message = match &e {
            DecodeErrors::Unsupported(e) => format!("not a picture in JPEG, PNG or WebP: {e:?}"),
            e => format!("the picture is damaged: {}", e.to_string().trim_end()),
        };
        Error::new(ErrorKind::Input, message)
    };
    let (bytes, progressive) = guarded(bytes);
    // What is odd about headers is harmless.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes[..]), options);
    decoder.decode_headers().map_err(told)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let [width, height] = [width, height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    super::check_size([width, height])?;
    // Progressive pictures are put together from coefficients of 16 bits for each of their colours.
    let pixels = u64::from(width) * u64::from(height);
    let colors = decoder
        .input_colorspace()
        .map_or(4, |space| space.num_components() as u64);
    let coefficients = if progressive { 2 * colors } else { 0 };
    super::check_memory(pixels * (coefficients + 3))?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let colors = if grey {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    };
    let strict = options.set_strict_mode(true);
    decoder.set_options(strict.jpeg_set_out_colorspace(colors));
    let pixels = decoder.decode().map_err(|e| {
        // It fills up what is missing, and all that it can tell is that no code is like that.
        let message = format!(
            "the picture is damaged, or a part of its data is missing: {}",
            e.to_string().trim_end()
        );
        Error::new(ErrorKind::Input, message)
    })?;
    let picture = match grey {
        true => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        false => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    let message = "the picture is damaged: it has fewer pixels than it says";
    let picture = picture.ok_or_else(|| Error::new(ErrorKind::Input, message))?;
    Ok(picture.into_rgb8())
}

/// The file up to the end of its last scan's data, and ones behind that. Only progressive pictures, in whose other
/// scans something may be missing, need the mark of the end, and only as far as it was there. And whether it is one.
fn guarded(bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut at, mut end, mut progressive, mut closed) = (0, None, false, false);
    while let Some((_, behind, marker)) = marker(bytes, at) {
        at = behind;
        match marker {
            END_OF_IMAGE => {
                closed = true;
                break;
            }
            // These have no length: the start of the image, restarts, and one without a meaning.
            0xd8 | 0xd0..=0xd7 | 0x01 => continue,
            _ => {}
        }
        progressive |= marker == PROGRESSIVE;
        let Some(&[high, low]) = bytes.get(at..at + 2) else {
            break;
        };
        at += usize::from(u16::from_be_bytes([high, low]));
        if marker == START_OF_SCAN {
            at = data_end(bytes, at);
            end = Some(at);
        }
    }
    let bytes = match end {
        Some(end) if progressive && closed => {
            [&bytes[..end], &ONES, &[0xff, END_OF_IMAGE]].concat()
        }
        Some(end) => [&bytes[..end], &ONES].concat(),
        None => bytes.to_vec(),
    };
    (bytes, progressive)
}

/// Where the entropy-coded data ends that goes on at `at`: before a marker that is no restart.
fn data_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some((begin, behind, marker)) = marker(bytes, at) {
        if !matches!(marker, 0xd0..=0xd7) {
            return begin;
        }
        at = behind;
    }
    bytes.len()
}

/// The next marker: where it begins, what is behind it, and its second byte.
fn marker(bytes: &[u8], at: usize) -> Option<(usize, usize, u8)> {
    let mut begin = at;
    loop {
        begin += bytes.get(begin..)?.iter().position(|&byte| byte == 0xff)?;
        // Any number of such bytes may stand before a marker.
        let fill = bytes[begin..].iter().position(|&byte| byte != 0xff)?;
        let behind = begin + fill + 1;
        match bytes[behind - 1] {
            0 => begin = behind,
            marker => return Some((begin, behind, marker)),
        }
    }
}
