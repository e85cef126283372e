//! The classes that `api.js` calls.

use centroid::{
    Artifact, ImageClassifier, Mode, ModelKind, Options, SentenceEmbedder, TextClassifier,
    Truncation,
};
use js_sys::{Array, Float32Array, Uint8Array};
use wasm_bindgen::prelude::*;

use crate::error::{exception, of_kind};
use crate::results;
use crate::source::Source;

/// An artifact that has been checked.
#[wasm_bindgen]
pub struct Model(Artifact);

#[wasm_bindgen]
impl Model {
    /// Copies the bytes and checks all of them.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: Uint8Array) -> Result<Model, JsValue> {
        let source = Source::new(bytes);
        let len = source.len();
        let artifact = Artifact::from_reader(source, len).map_err(exception)?;
        Ok(Self(artifact))
    }

    /// What it is for: `"text-classifier"`, `"sentence-embedder"` or `"image-classifier"`.
    #[wasm_bindgen(getter)]
    pub fn kind(&self) -> Result<String, JsValue> {
        let kind = match self.0.kind().map_err(exception)? {
            ModelKind::EfficientNet => "image-classifier",
            ModelKind::Encoder => match self.0.encoder().map_err(exception)?.task {
                "classification" => "text-classifier",
                _ => "sentence-embedder",
            },
            other => {
                let message = format!("no class of this package runs a model of kind {other:?}");
                return Err(of_kind("unsupported", &message));
            }
        };
        Ok(kind.into())
    }
}

/// Options by what JavaScript calls them.
fn options(mode: &str, max_length: Option<u32>, truncate: bool) -> Result<Options, JsValue> {
    let mut options = Options::new().threads(1).mode(match mode {
        "int8" => Mode::Int8,
        "exact" => Mode::Exact,
        _ => {
            let message = format!("mode is {mode:?}; it can be \"int8\" or \"exact\"");
            return Err(of_kind("config", &message));
        }
    });
    if let Some(tokens) = max_length {
        options = options.max_length(tokens as usize);
    }
    if truncate {
        options = options.truncation(Truncation::Truncate);
    }
    Ok(options)
}

/// How many labels are asked for: all of them, if nobody says.
fn most(top_k: Option<u32>) -> usize {
    top_k.map_or(usize::MAX, |k| k as usize)
}

/// As the library takes them.
fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// A classifier of texts.
#[wasm_bindgen]
pub struct Texts(TextClassifier);

#[wasm_bindgen]
impl Texts {
    /// Takes the model.
    #[wasm_bindgen(constructor)]
    pub fn new(
        model: Model,
        mode: &str,
        max_length: Option<u32>,
        truncate: bool,
    ) -> Result<Texts, JsValue> {
        let options = options(mode, max_length, truncate)?;
        (TextClassifier::new(model.0, options))
            .map(Self)
            .map_err(exception)
    }

    /// The labels in the order of the model's logits.
    #[wasm_bindgen(getter)]
    pub fn labels(&self) -> Vec<String> {
        self.0.labels().to_vec()
    }

    /// The most tokens of a text.
    #[wasm_bindgen(getter, js_name = maxLength)]
    pub fn max_length(&self) -> usize {
        self.0.max_length()
    }

    /// An object for each text.
    pub fn classify(&self, texts: Vec<String>, top_k: Option<u32>) -> Result<JsValue, JsValue> {
        let found = self.0.classify(&borrowed(&texts)).map_err(exception)?;
        results::texts(&found, most(top_k))
    }

    /// The same for pairs of texts, of which `seconds` has the second ones.
    #[wasm_bindgen(js_name = classifyPairs)]
    pub fn classify_pairs(
        &self,
        firsts: Vec<String>,
        seconds: Vec<String>,
        top_k: Option<u32>,
    ) -> Result<JsValue, JsValue> {
        let pairs: Vec<(&str, &str)> = (firsts.iter().zip(&seconds))
            .map(|(first, second)| (first.as_str(), second.as_str()))
            .collect();
        let found = self.0.classify_pairs(&pairs).map_err(exception)?;
        results::texts(&found, most(top_k))
    }
}

/// An embedder of texts.
#[wasm_bindgen]
pub struct Embedder(SentenceEmbedder);

#[wasm_bindgen]
impl Embedder {
    /// Takes the model.
    #[wasm_bindgen(constructor)]
    pub fn new(
        model: Model,
        mode: &str,
        max_length: Option<u32>,
        truncate: bool,
    ) -> Result<Embedder, JsValue> {
        let options = options(mode, max_length, truncate)?;
        (SentenceEmbedder::new(model.0, options))
            .map(Self)
            .map_err(exception)
    }

    /// Values of a vector.
    #[wasm_bindgen(getter)]
    pub fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    /// The most tokens of a text.
    #[wasm_bindgen(getter, js_name = maxLength)]
    pub fn max_length(&self) -> usize {
        self.0.max_length()
    }

    /// A `Float32Array` for each text.
    pub fn encode(&self, texts: Vec<String>) -> Result<Array, JsValue> {
        let found = self.0.embed(&borrowed(&texts)).map_err(exception)?;
        let vectors = found
            .iter()
            .map(|text| Float32Array::from(&text.vector[..]));
        Ok(vectors.collect())
    }
}

/// A classifier of pictures.
#[wasm_bindgen]
pub struct Images(ImageClassifier);

#[wasm_bindgen]
impl Images {
    /// Takes the model.
    #[wasm_bindgen(constructor)]
    pub fn new(model: Model, mode: &str) -> Result<Images, JsValue> {
        let options = options(mode, None, false)?;
        (ImageClassifier::new(model.0, options))
            .map(Self)
            .map_err(exception)
    }

    /// The labels in the order of the model's logits.
    #[wasm_bindgen(getter)]
    pub fn labels(&self) -> Vec<String> {
        self.0.labels().to_vec()
    }

    /// Height and width of the network's input.
    #[wasm_bindgen(getter)]
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// An object for the bytes of a JPEG, PNG or WebP file.
    pub fn classify(&self, file: &[u8], top_k: Option<u32>) -> Result<JsValue, JsValue> {
        let found = self.0.classify_bytes(&[file]).map_err(exception)?;
        results::image(&found[0], most(top_k))
    }

    /// The same for pixels of red, green, blue and alpha.
    #[wasm_bindgen(js_name = classifyPixels)]
    pub fn classify_pixels(
        &self,
        width: u32,
        height: u32,
        pixels: &[u8],
        top_k: Option<u32>,
    ) -> Result<JsValue, JsValue> {
        let found = self.0.classify_rgba([width, height], pixels);
        results::image(&found.map_err(exception)?, most(top_k))
    }
}
