//! Builtins that make large values out of small ones, with a bound: each call may double what it is given, and regorus looks
//! at no clock inside of one. They replace regorus' own, with the same results for what a policy may give them.

use anyhow::{Result, bail, ensure};
use regorus::{Engine, Value};

use crate::json::digits;

/// Most bytes of a text, and most items of an array.
pub const TEXT: usize = 1 << 20;
pub const ITEMS: usize = 1 << 16;

pub fn add_to(engine: &mut Engine) -> Result<()> {
    engine.add_extension("array.concat".to_owned(), 2, Box::new(|given| array_concat(&given)))?;
    engine.add_extension("concat".to_owned(), 2, Box::new(|given| concat(&given)))?;
    engine.add_extension("replace".to_owned(), 3, Box::new(|given| replace(&given)))?;
    engine.add_extension("sprintf".to_owned(), 2, Box::new(|given| sprintf(&given)))
}

fn array_concat(given: &[Value]) -> Result<Value> {
    let (first, second) = (given[0].as_array()?, given[1].as_array()?);
    ensure!(first.len() + second.len() <= ITEMS, "array.concat makes too many items");
    Ok(Value::from(first.iter().chain(second.iter()).cloned().collect::<Vec<_>>()))
}

fn concat(given: &[Value]) -> Result<Value> {
    let between = given[0].as_string()?;
    let texts: Vec<&str> = match &given[1] {
        Value::Array(items) => items.iter().map(text).collect::<Result<_>>()?,
        Value::Set(items) => items.iter().map(text).collect::<Result<_>>()?,
        _ => bail!("concat takes an array or a set"),
    };
    let length = texts.iter().map(|one| one.len()).sum::<usize>() + between.len() * texts.len().saturating_sub(1);
    ensure!(length <= TEXT, "concat makes too long a text");
    Ok(Value::from(texts.join(between)))
}

fn replace(given: &[Value]) -> Result<Value> {
    let (whole, old, new) = (given[0].as_string()?, given[1].as_string()?, given[2].as_string()?);
    ensure!(!old.is_empty(), "replace takes no empty text");
    let grown = whole.matches(old.as_ref()).count() * new.len().saturating_sub(old.len());
    ensure!(whole.len() + grown <= TEXT, "replace makes too long a text");
    Ok(Value::from(whole.replace(old.as_ref(), new)))
}

/// Only `%v` and `%%`, which is all that a policy may say.
fn sprintf(given: &[Value]) -> Result<Value> {
    let mut values = given[1].as_array()?.iter();
    let mut made = String::new();
    let mut rest: &str = given[0].as_string()?;
    while let Some((before, after)) = rest.split_once('%') {
        made.push_str(before);
        match after.chars().next() {
            Some('%') => made.push('%'),
            Some('v') => match values.next() {
                Some(Value::String(one)) => made.push_str(one),
                Some(number @ Value::Number(_)) => made.push_str(&digits(number)?),
                Some(one @ (Value::Bool(_) | Value::Null)) => made.push_str(&one.to_string()),
                _ => bail!("sprintf has no text, number, boolean or null for a %v"),
            },
            _ => bail!("sprintf knows %v and %%"),
        }
        ensure!(made.len() <= TEXT, "sprintf makes too long a text");
        rest = &after[1..];
    }
    ensure!(made.len() + rest.len() <= TEXT, "sprintf makes too long a text");
    Ok(Value::from(made + rest))
}

fn text(value: &Value) -> Result<&str> {
    Ok(value.as_string()?)
}
