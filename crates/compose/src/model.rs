//! The model: all that training learnt, as one value that is kept as bytes and never changed.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    network::{Network, Rows},
    phrase::Phrases,
    response::{Entry, Place},
    text::{likeness, words},
};

const MAGIC: &[u8; 8] = b"CWcompos";
/// The version of the format: it changes whenever the bytes mean something else, features included.
const VERSION: u32 = 1;
const HEAD: usize = 8 + 4 + 8;
/// The least likeness at which a response without a history shares the history of a class.
const LIKE_MIN: f32 = 0.4;

/// The reason why bytes are no model of this build.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ModelError {
    /// The bytes do not begin as a model does.
    #[error("these bytes are no model")]
    Foreign,
    /// A build with another version of the format wrote the bytes.
    #[error("the model has version {0}, this build reads version {VERSION}")]
    Version(u32),
    /// The bytes are not those that were written.
    #[error("the model is damaged")]
    Damaged,
}

/// An immutable model, made to be shared. The default model knows nothing and answers by likeness of text alone.
#[derive(Debug, Default)]
pub struct Model {
    pub(crate) parts: Parts,
    pub(crate) rows: Rows,
    class_of: HashMap<u64, u32>,
    class_words: Vec<Vec<String>>,
    /// The words that agents and responses use.
    lexicon: HashSet<String>,
    id: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub network: Network,
    pub classes: Vec<Class>,
    pub phrases: Phrases,
}

/// Responses that say the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Class {
    /// The key of the class's first response: the name stays while that response does.
    pub name: u64,
    /// The first response's text, folded: responses that came later are compared with it.
    pub text: String,
    pub members: Vec<Member>,
}

/// A response and how often it was sent: in total, and while the conversation was about each folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Member {
    pub key: u64,
    pub uses: u32,
    pub in_folder: Vec<(u64, u32)>,
}

impl Model {
    pub(crate) fn new(parts: Parts) -> Model {
        let mut model = Model {
            rows: parts.network.rows(),
            class_of: HashMap::new(),
            class_words: Vec::new(),
            lexicon: HashSet::new(),
            id: 0,
            parts,
        };
        for (at, class) in (0u32..).zip(&model.parts.classes) {
            model.class_of.extend(class.members.iter().map(|member| (member.key, at)));
            model.class_words.push(words(&class.text));
        }
        model.lexicon = model.class_words.iter().flatten().cloned().chain(model.parts.phrases.bare_words()).collect();
        model.id = xxh3_64(&model.payload());
        model
    }

    /// Reads a model back.
    ///
    /// # Errors
    ///
    /// [`Model::to_bytes`] of this version did not write the bytes, or they were damaged since.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, ModelError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(ModelError::Foreign)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(ModelError::Damaged)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(ModelError::Version(version));
        }
        let (sum, payload) = rest.split_first_chunk::<8>().ok_or(ModelError::Damaged)?;
        if xxh3_64(payload) != u64::from_le_bytes(*sum) {
            return Err(ModelError::Damaged);
        }
        let (parts, rest) = postcard::take_from_bytes::<Parts>(payload).map_err(|_| ModelError::Damaged)?;
        if !rest.is_empty() || !parts.is_sound() {
            return Err(ModelError::Damaged);
        }
        Ok(Model::new(parts))
    }

    /// The model as bytes: equal models give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let payload = self.payload();
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(xxh3_64(&payload).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    fn payload(&self) -> Vec<u8> {
        // The parts are numbers, texts and vectors of these: none can fail to be written.
        postcard::to_allocvec(&self.parts).unwrap_or_default()
    }

    /// A hash of all that the model knows.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of classes of responses that the model ranks.
    pub fn classes(&self) -> usize {
        self.parts.classes.len()
    }

    pub(crate) fn class(&self, key: u64) -> Option<usize> {
        self.class_of.get(&key).map(|at| *at as usize)
    }

    pub(crate) fn class_name(&self, key: u64) -> Option<u64> {
        self.parts.classes.get(self.class(key)?).map(|class| class.name)
    }

    /// Whether the company's agents or responses use a folded word.
    pub(crate) fn uses_word(&self, word: &str) -> bool {
        self.lexicon.contains(word)
    }

    /// The bonus of a word for how often it comes after another, as a logarithm: 0 to 3.
    pub(crate) fn follows(&self, before: &str, word: &str) -> f32 {
        self.parts.phrases.chance(before, word).map_or(0.0, |chance| (3.0 + chance.ln()).clamp(0.0, 3.0))
    }

    /// The place of a list's response among the classes.
    pub(crate) fn place(&self, entry: &Entry) -> Place {
        let known = self.class(entry.key).and_then(|class| {
            let members = &self.parts.classes.get(class)?.members;
            members.iter().position(|member| member.key == entry.key).map(|member| Place::Known(class, member))
        });
        known.unwrap_or_else(|| self.nearest(&entry.words))
    }

    fn nearest(&self, response: &[String]) -> Place {
        let like = self.class_words.iter().map(|words| likeness(response, words)).enumerate();
        let nearest = like.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, like)| *like >= LIKE_MIN);
        nearest.map_or(Place::Nowhere, |(class, like)| Place::Like(class, like))
    }
}

impl Parts {
    fn is_sound(&self) -> bool {
        let ranks = self.network.features.is_empty() && self.classes.is_empty()
            || self.network.is_sound() && self.network.class_bias.len() == self.classes.len();
        ranks && self.phrases.is_sound()
    }
}
