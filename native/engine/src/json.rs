//! regorus' values as JSON text, with the digits that OPA writes. regorus' own serializer makes fractions of whole numbers
//! that 64 bits do not hold.

use std::io::{Error, Write};

use anyhow::{Result, ensure};
use regorus::Value;

/// Most bytes of a text: a value that holds one part many times is small here, and large as JSON.
pub const LONGEST: usize = 1 << 20;

/// Return `value` as compact JSON; the text `<undefined>` for a rule without a value.
pub fn written(value: &Value) -> Result<String> {
    let mut out = Bounded(Vec::with_capacity(128));
    put(&mut out, value)?;
    Ok(String::from_utf8(out.0)?)
}

pub fn written_all(values: &Value) -> Result<Vec<String>> {
    values.as_array()?.iter().map(written).collect()
}

/// Return all digits of a whole number. A fraction is an error: no policy that may be in force comes to one.
pub fn digits(number: &Value) -> Result<String> {
    let number = number.as_number()?;
    ensure!(number.is_integer(), "a number has a fraction");
    Ok(number.format_decimal())
}

fn put(out: &mut Bounded, value: &Value) -> Result<()> {
    match value {
        Value::Null => out.write_all(b"null")?,
        Value::Bool(true) => out.write_all(b"true")?,
        Value::Bool(false) => out.write_all(b"false")?,
        Value::Number(_) => out.write_all(digits(value)?.as_bytes())?,
        Value::String(text) => serde_json::to_writer(out, text.as_ref())?,
        Value::Array(items) => put_list(out, items.iter())?,
        Value::Set(items) => put_list(out, items.iter_sorted())?,
        Value::Object(entries) => {
            out.write_all(b"{")?;
            for (place, (key, one)) in entries.iter_sorted().enumerate() {
                if place > 0 {
                    out.write_all(b",")?;
                }
                match key {
                    Value::String(text) => serde_json::to_writer(&mut *out, text.as_ref())?,
                    _ => serde_json::to_writer(&mut *out, &written(key)?)?,
                }
                out.write_all(b":")?;
                put(out, one)?;
            }
            out.write_all(b"}")?;
        }
        Value::Undefined => out.write_all(b"\"<undefined>\"")?,
    }
    Ok(())
}

fn put_list<'a>(out: &mut Bounded, items: impl Iterator<Item = &'a Value>) -> Result<()> {
    out.write_all(b"[")?;
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        put(out, item)?;
    }
    Ok(out.write_all(b"]")?)
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> Result<usize, Error> {
        if self.0.len() + more.len() > LONGEST {
            return Err(Error::other("the answer is too long"));
        }
        self.0.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
