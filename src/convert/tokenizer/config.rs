//! The small files of a model directory: settings, special tokens, and how they are read.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Larger tokenizer files are refused unread.
const MAX_BYTES: u64 = 256 << 20;

/// `tokenizer_config.json` and the older files beside it.
pub(super) struct Config {
    pub(super) file: PathBuf,
    pub(super) fields: Map<String, Value>,
    pub(super) special: Map<String, Value>,
    /// Further tokens with their ids, in the order of the ids.
    pub(super) added: Vec<(u32, Value)>,
}

impl Config {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let file = dir.join("tokenizer_config.json");
        let fields = read_object(dir, "tokenizer_config.json")?.unwrap_or_default();
        let mut special = Map::new();
        let mut added = Vec::new();
        // Where the newer list is given, `transformers` does not look at the older files.
        match fields.get("added_tokens_decoder") {
            Some(Value::Object(tokens)) => {
                for (id, token) in tokens {
                    let field = format!("added_tokens_decoder.{id}");
                    let id: u32 = id
                        .parse()
                        .map_err(|_| wrong(&file, &field, "its key is not a token id"))?;
                    content(token).ok_or_else(|| wrong(&file, &field, "expected a token"))?;
                    added.push((id, token.clone()));
                }
            }
            Some(Value::Null) | None => {
                special = read_object(dir, "special_tokens_map.json")?.unwrap_or_default();
                let old = read_object(dir, "added_tokens.json")?.unwrap_or_default();
                for (token, id) in old {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    let id = id.ok_or_else(|| {
                        wrong(
                            &dir.join("added_tokens.json"),
                            &token,
                            "expected a token id",
                        )
                    })?;
                    added.push((id, Value::String(token)));
                }
            }
            Some(_) => return Err(wrong(&file, "added_tokens_decoder", "expected an object")),
        }
        added.sort_by_key(|(id, _)| *id);
        Ok(Self {
            file,
            fields,
            special,
            added,
        })
    }

    /// A boolean, `None` where absent or null.
    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong(&self.file, field, "expected true, false or null")),
        }
    }

    pub(super) fn string(&self, field: &str) -> Result<Option<&str>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(_) => Err(wrong(&self.file, field, "expected a string or null")),
        }
    }

    /// The special token in the role `role` as an entry of `added_tokens`, without its id.
    pub(super) fn token(&self, role: &str, default: &str) -> Result<Value> {
        let (file, value) = match self.special.get(role) {
            Some(value) => (self.file.with_file_name("special_tokens_map.json"), value),
            None => (
                self.file.clone(),
                self.fields.get(role).unwrap_or(&Value::Null),
            ),
        };
        if value.is_null() {
            return Ok(entry(&json!(default), true));
        }
        match content(value) {
            Some(text) if !text.is_empty() => Ok(entry(value, true)),
            _ => Err(wrong(&file, role, "expected a token")),
        }
    }
}

/// An entry of `added_tokens` from `"[CLS]"` or from `{"content": "[CLS]", "lstrip": ...}`.
pub(super) fn entry(token: &Value, special: bool) -> Value {
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    let special = special || flag("special").unwrap_or(false);
    json!({
        "content": content(token).unwrap_or_default(),
        "single_word": flag("single_word").unwrap_or(false),
        "lstrip": flag("lstrip").unwrap_or(false),
        "rstrip": flag("rstrip").unwrap_or(false),
        "normalized": flag("normalized").unwrap_or(!special),
        "special": special,
    })
}

pub(super) fn content(token: &Value) -> Option<&str> {
    match token {
        Value::String(text) => Some(text),
        _ => token.get("content")?.as_str(),
    }
}

/// The object in a JSON file; `None` if there is no such file.
pub(super) fn read_object(dir: &Path, name: &str) -> Result<Option<Map<String, Value>>> {
    let path = dir.join(name);
    let Some(bytes) = read(&path)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(bad("expected a JSON object").in_file(path)),
        Err(e) => Err(bad(format!("bad JSON: {e}")).in_file(path)),
    }
}

pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    String::from_utf8(bytes).map(Some).map_err(|e| {
        let at = e.utf8_error().valid_up_to() as u64;
        bad("not valid UTF-8").in_file(path).at(at)
    })
}

pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    if matches!(path.metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    match files::regular(path, MAX_BYTES) {
        Err(e) if e.kind() == ErrorKind::Input => Err(bad(e.message()).in_file(path)),
        read => read.map(Some),
    }
}

pub(super) fn missing(dir: &Path, name: &str) -> Error {
    bad(format!(
        "no tokenizer: neither tokenizer.json nor {name} is there"
    ))
    .in_file(dir)
}

pub(super) fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Tokenizer, message)
}

pub(super) fn wrong(file: &Path, field: &str, what: &str) -> Error {
    bad(format!("{field}: {what}")).in_file(file)
}
