//! From a picture to a network's input: decode, cut out, resize, normalize.

mod jpeg;
mod resample;
#[cfg(test)]
mod tests;

use std::io::Cursor;
use std::path::Path;

use ::image::codecs::webp::WebPDecoder;
use ::image::imageops;
use ::image::{ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use self::resample::{Part, resize};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::models::efficientnet::{Crop, Preprocessing};

/// Bytes of the largest file that is read.
const MAX_FILE: u64 = 256 << 20;
/// The longest side of a picture.
const MAX_SIDE: u32 = 1 << 15;
/// Pixels of a picture: 192 MiB in three colours.
const MAX_PIXELS: u64 = 1 << 26;
/// Memory that decoding may take: what a picture says about its size is not believed beyond it.
const MAX_MEMORY: u64 = 512 << 20;

/// The bytes of a picture's file.
///
/// # Errors
/// [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::Input`] if it is too large.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    files::regular(path, MAX_FILE)
}

/// The input `[size][size][3]` that a network takes for a picture in JPEG, PNG or WebP.
///
/// Transparency is dropped, grey becomes colours; what a camera says about orientation is not looked at, as in
/// the programs that these networks come from.
///
/// # Errors
/// [`ErrorKind::Input`] if the bytes are no picture, or too large a one.
pub(crate) fn input(bytes: &[u8], preprocessing: &Preprocessing) -> Result<Vec<f32>> {
    let picture = decode(bytes)?;
    Ok(normalized(&square(&picture, preprocessing), preprocessing))
}

/// The same for pixels of red, green, blue and alpha.
///
/// # Errors
/// [`ErrorKind::Input`] if there are not as many as `size` (width and height) says, none, or too many.
pub(crate) fn input_of_pixels(
    [width, height]: [u32; 2],
    pixels: &[u8],
    preprocessing: &Preprocessing,
) -> Result<Vec<f32>> {
    check_size([width, height])?;
    let count = u64::from(width) * u64::from(height);
    if pixels.len() as u64 != 4 * count {
        return Err(Error::new(
            ErrorKind::Input,
            format!(
                "{} bytes where {width} x {height} pixels have {}",
                pixels.len(),
                4 * count
            ),
        ));
    }
    let colors = pixels
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|p| [p[0], p[1], p[2]]);
    let picture = RgbImage::from_raw(width, height, colors.collect()).expect("as many pixels");
    Ok(normalized(&square(&picture, preprocessing), preprocessing))
}

/// # Errors
/// [`ErrorKind::Input`] if a picture of this width and height is empty or too large.
fn check_size([width, height]: [u32; 2]) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    let message = if width > MAX_SIDE || height > MAX_SIDE {
        format!("a picture of {width} x {height} pixels is larger than {MAX_SIDE} x {MAX_SIDE}")
    } else if !(1..=MAX_PIXELS).contains(&pixels) {
        format!("the picture has {pixels} pixels; 1 to {MAX_PIXELS} can be read")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Input, message))
}

/// # Errors
/// [`ErrorKind::Input`] if decoding takes more bytes than there may be.
fn check_memory(bytes: u64) -> Result<()> {
    if bytes <= MAX_MEMORY {
        return Ok(());
    }
    let message = format!(
        "decoding the picture would take {} MiB; the limit is {}",
        bytes >> 20,
        MAX_MEMORY >> 20
    );
    Err(Error::new(ErrorKind::Input, message))
}

fn normalized(square: &RgbImage, preprocessing: &Preprocessing) -> Vec<f32> {
    let Preprocessing {
        mean, deviation, ..
    } = preprocessing;
    let pixels = square.as_raw().as_chunks::<3>().0.iter();
    pixels
        .flat_map(|pixel| {
            let color = |i: usize| (f32::from(pixel[i]) - mean[i]) / deviation[i];
            [color(0), color(1), color(2)]
        })
        .collect()
}

/// A part of a picture, in shares of its width and height, and whether left and right are exchanged.
#[cfg(feature = "train")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    /// Left, top, width and height; the middle, as the network is used, if `None`.
    pub(crate) part: Option<[f64; 4]>,
    pub(crate) flip: bool,
}

/// [`input`], of a part of a picture.
///
/// # Errors
/// As for [`input`].
#[cfg(feature = "train")]
pub(crate) fn view(bytes: &[u8], view: View, preprocessing: &Preprocessing) -> Result<Vec<f32>> {
    let picture = decode(bytes)?;
    let mut square = match view.part {
        None => square(&picture, preprocessing),
        Some(part) => {
            let pixels = |share: f64, of: u32| (share * f64::from(of)) as u32;
            let (width, height) = (picture.width(), picture.height());
            let left = pixels(part[0], width).min(width - 1);
            let top = pixels(part[1], height).min(height - 1);
            let wide = pixels(part[2], width).clamp(1, width - left);
            let high = pixels(part[3], height).clamp(1, height - top);
            let part = imageops::crop_imm(&picture, left, top, wide, high).to_image();
            let size = preprocessing.size as u32;
            resize(&part, &Part::all([size; 2]), preprocessing.filter)
        }
    };
    if view.flip {
        imageops::flip_horizontal_in_place(&mut square);
    }
    Ok(normalized(&square, preprocessing))
}

fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let fail = |message: String| Error::new(ErrorKind::Input, message);
    let told = |e: ImageError| match e {
        ImageError::Limits(_) => fail(format!(
            "the picture is larger than {MAX_SIDE} x {MAX_SIDE} pixels or needs more than {} MiB",
            MAX_MEMORY >> 20
        )),
        ImageError::Unsupported(e) => fail(format!("not a picture in JPEG, PNG or WebP: {e}")),
        e => fail(format!("the picture is damaged: {e}")),
    };
    let reader = || {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let mut reader = reader.map_err(|e| fail(format!("not a picture: {e}")))?;
        if reader.format().is_none() {
            return Err(fail("not a picture in JPEG, PNG or WebP".into()));
        }
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_MEMORY);
        reader.limits(limits);
        Ok(reader)
    };
    if reader()?.format() == Some(ImageFormat::Jpeg) {
        return jpeg::decode(bytes);
    }
    let (width, height) = reader()?.into_dimensions().map_err(told)?;
    check_size([width, height])?;
    if reader()?.format() == Some(ImageFormat::WebP) {
        let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(told)?;
        // Its decoder keeps a canvas of four colours, a frame, and what is shown.
        let canvas = 4 * u64::from(width) * u64::from(height);
        if decoder.has_animation() {
            check_memory(3 * canvas)?;
        }
    }
    Ok(reader()?.decode().map_err(told)?.into_rgb8())
}

/// The middle of a picture at the size of the input.
fn square(picture: &RgbImage, preprocessing: &Preprocessing) -> RgbImage {
    let filter = preprocessing.filter;
    let (size, side) = (preprocessing.size as u32, preprocessing.resize as u64);
    let (width, height) = (u64::from(picture.width()), u64::from(picture.height()));
    let shorter = width.min(height);
    match preprocessing.crop {
        // As torchvision: the longer side is rounded down.
        Crop::AfterResize => {
            let whole = [width, height].map(|of| (of * side / shorter) as u32);
            let [columns, rows] = whole.map(|of| {
                let first = to_even(of - size);
                first..first + size
            });
            let part = Part {
                whole,
                columns,
                rows,
            };
            resize(picture, &part, filter)
        }
        // As TensorFlow's EfficientNet: a half pixel goes to the right and down.
        Crop::BeforeResize => {
            let side = (shorter * u64::from(size) / side).max(1);
            let part = middle(picture, side as u32);
            resize(&part, &Part::all([size; 2]), filter)
        }
        Crop::Whole => resize(picture, &Part::all([size; 2]), filter),
    }
}

/// A square from the middle; of what is left, half a pixel more is left and above.
fn middle(picture: &RgbImage, side: u32) -> RgbImage {
    let [x, y] = [picture.width(), picture.height()].map(|of| (of - side).div_ceil(2));
    imageops::crop_imm(picture, x, y, side, side).to_image()
}

/// Python's `round(n / 2)`, by which torchvision cuts: of two numbers that are as near, the even one.
fn to_even(n: u32) -> u32 {
    n / 2 + u32::from(n % 4 == 3)
}
