//! JSON as regorus' values. `Value::from_json_str` takes half as long again: it copies each text twice, and looks for names
//! that repeat.

use std::collections::BTreeMap;
use std::fmt;

use regorus::Value;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

pub struct Question(pub Value);

impl<'de> Deserialize<'de> for Question {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

/// It has no method for a fraction, which no question has: every number is exact, or refused.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON without fractions")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(Question(item)) = items.next_element()? {
            found.push(item);
        }
        Ok(Value::from(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        // All at once, because the names mostly come in order already.
        let mut found = Vec::with_capacity(8);
        while let Some((Question(name), Question(value))) = entries.next_entry()? {
            found.push((name, value));
        }
        Ok(Value::from(found.into_iter().collect::<BTreeMap<_, _>>()))
    }
}
