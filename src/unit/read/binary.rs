//! The binary form: `bplist00`, objects, a table of their offsets, and a trailer. What
//! dates and data say is not read, only that they are some.

use std::time::SystemTime;

use plist::{Date, Uid, Value};

use super::{Builder, List, Shape, Trouble, unreadable};
use crate::text::quote;

const MAGIC: &[u8] = b"bplist00";
const TRAILER_BYTES: usize = 32;

pub(super) fn read(bytes: &[u8]) -> List {
    let Some(mut reader) = Reader::new(bytes) else {
        return unreadable(Trouble::somewhere("is a damaged binary property list: its trailer makes no sense"));
    };
    let ended = reader.object(reader.top);
    let ended = ended.map_err(|what| {
        let path = reader.builder.open.last().map(super::Open::next).unwrap_or_default();
        let at = if path.is_empty() { String::new() } else { format!(" (at {})", quote(&path, 60)) };
        Trouble::somewhere(format!("{what}{at}"))
    });
    reader.builder.finished(ended)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset_bytes: usize,
    reference_bytes: usize,
    objects: u64,
    top: u64,
    table: usize,
    builder: Builder,
}

fn damaged(what: &str) -> String {
    format!("is a damaged binary property list: {what}")
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let trailer = bytes.len().checked_sub(TRAILER_BYTES).filter(|at| *at >= MAGIC.len())?;
        let reader = Reader {
            bytes,
            offset_bytes: usize::from(bytes[trailer + 6]),
            reference_bytes: usize::from(bytes[trailer + 7]),
            objects: integer(bytes, trailer + 8, 8)?,
            top: integer(bytes, trailer + 16, 8)?,
            table: usize::try_from(integer(bytes, trailer + 24, 8)?).ok()?,
            builder: Builder::default(),
        };
        let sizes = 1..=8;
        let is_sound = bytes.starts_with(MAGIC)
            && sizes.contains(&reader.offset_bytes)
            && sizes.contains(&reader.reference_bytes)
            && reader.table <= trailer;
        is_sound.then_some(reader)
    }

    /// Reads one object and what it refers to. As deep as the builder lets it, so one that
    /// holds itself ends there too.
    fn object(&mut self, number: u64) -> Result<(), String> {
        let at = self.place(number).ok_or_else(|| damaged("it refers to an object that is not there"))?;
        let cut = || damaged("an object breaks off");
        let marker = *self.bytes.get(at).ok_or_else(cut)?;
        let (kind, size) = (marker >> 4, marker & 0xf);
        let value = match (kind, size) {
            (0, 8) => Value::Boolean(false),
            (0, 9) => Value::Boolean(true),
            (1, 0..=4) => self.integer(at + 1, 1 << size).ok_or_else(cut)?,
            (2, 2) => {
                let bits = self.number(at + 1, 4).and_then(|bits| u32::try_from(bits).ok()).ok_or_else(cut)?;
                Value::Real(f32::from_bits(bits).into())
            }
            (2, 3) => Value::Real(f64::from_bits(self.number(at + 1, 8).ok_or_else(cut)?)),
            (3, 3) => {
                self.number(at + 1, 8).map(|_| Value::Date(Date::from(SystemTime::UNIX_EPOCH))).ok_or_else(cut)?
            }
            (4, _) => self.slice(at, 1).map(|_| Value::Data(Vec::new())).ok_or_else(cut)?,
            (5 | 6, _) => Value::String(self.text(at, kind)?),
            (8, 0..=7) => Value::Uid(Uid::new(self.number(at + 1, usize::from(size) + 1).ok_or_else(cut)?)),
            (0xa, _) => return self.array(at),
            (0xd, _) => return self.dictionary(at),
            _ => return Err(damaged("it has a value of a kind that no property list has")),
        };
        self.builder.value(value)
    }

    fn array(&mut self, at: usize) -> Result<(), String> {
        let (count, first) = self.length(at).ok_or_else(|| damaged("an array breaks off"))?;
        self.builder.begin(Shape::Array, None)?;
        for n in 0..count {
            let item = self.reference(first, n)?;
            self.object(item)?;
        }
        self.builder.end(Shape::Array)
    }

    fn dictionary(&mut self, at: usize) -> Result<(), String> {
        let (count, first) = self.length(at).ok_or_else(|| damaged("a dictionary breaks off"))?;
        self.builder.begin(Shape::Dict, None)?;
        for n in 0..count {
            let key = self.reference(first, n)?;
            let key = self.place(key).ok_or_else(|| damaged("it refers to an object that is not there"))?;
            let kind = self.bytes.get(key).map_or(0, |marker| marker >> 4);
            if !matches!(kind, 5 | 6) {
                return Err(damaged("a key is no text"));
            }
            let key = self.text(key, kind)?;
            self.builder.key(key, None)?;
            let value = self.reference(first, count.saturating_add(n))?;
            self.object(value)?;
        }
        self.builder.end(Shape::Dict)
    }

    fn reference(&self, first: usize, n: usize) -> Result<u64, String> {
        let at = n.checked_mul(self.reference_bytes).and_then(|skip| first.checked_add(skip));
        at.and_then(|at| self.number(at, self.reference_bytes)).ok_or_else(|| damaged("a collection breaks off"))
    }

    fn place(&self, number: u64) -> Option<usize> {
        let number = usize::try_from(number).ok().filter(|_| number < self.objects)?;
        let at = number.checked_mul(self.offset_bytes).and_then(|skip| self.table.checked_add(skip))?;
        usize::try_from(self.number(at, self.offset_bytes)?).ok().filter(|at| *at < self.table)
    }

    /// How many, and where they begin.
    fn length(&self, at: usize) -> Option<(usize, usize)> {
        let size = self.bytes.get(at)? & 0xf;
        if size != 0xf {
            return Some((size.into(), at + 1));
        }
        let width = match self.bytes.get(at + 1)? {
            marker @ 0x10..=0x13 => 1 << (marker & 0xf),
            _ => return None,
        };
        Some((usize::try_from(self.number(at + 2, width)?).ok()?, at + 2 + width))
    }

    /// The bytes of text or data, `width` for each of its units.
    fn slice(&self, at: usize, width: usize) -> Option<&'a [u8]> {
        let (count, from) = self.length(at)?;
        self.bytes.get(from..from.checked_add(count.checked_mul(width)?)?)
    }

    fn text(&self, at: usize, kind: u8) -> Result<String, String> {
        let cut = || damaged("a text breaks off");
        if kind == 5 {
            let bytes = self.slice(at, 1).ok_or_else(cut)?;
            return String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a text is no text"));
        }
        let bytes = self.slice(at, 2).ok_or_else(cut)?;
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        String::from_utf16(&units).map_err(|_| damaged("a text is no text"))
    }

    /// Up to four bytes are without a sign, eight have one, sixteen hold what eight cannot.
    fn integer(&self, at: usize, width: usize) -> Option<Value> {
        Some(match width {
            8 => Value::from(self.number(at, 8)?.cast_signed()),
            16 => Value::from(self.number(at + 8, 8)?),
            _ => Value::from(self.number(at, width)?),
        })
    }

    fn number(&self, at: usize, width: usize) -> Option<u64> {
        integer(self.bytes, at, width)
    }
}

/// Big-endian.
fn integer(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}
