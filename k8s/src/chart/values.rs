//! The values of an installation: the chart's defaults, what `--ha` changes, and what a person gave.
//!
//! Before it: flags and files. After it: *render*.
//!
//! Invariant: later beats earlier: defaults, `--ha`, values in the order in which they were given.
//! Invariant: what the chart's schema does not know is refused, with the nearest value that it does.

use serde_json::{Map, Value};

use super::{Error, HA, SCHEMA, VALUES};

/// What a person gave, on top of the chart's defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// Whether the defaults of a highly available installation hold.
    pub ha: bool,
    /// What was given, merged.
    pub given: Map<String, Value>,
}

impl Values {
    /// Adds a values file.
    ///
    /// # Errors
    /// The text is no YAML map.
    pub fn file(&mut self, text: &str) -> Result<(), Error> {
        match read(text)? {
            Value::Object(map) => {
                merge(&mut self.given, map);
                Ok(())
            }
            Value::Null => Ok(()),
            _ => Err(Error::new("values are a map, e.g. `replicas: 2`")),
        }
    }

    /// Adds one value, `a.b=c`: numbers, true, false and null are what they say
    /// where no text is wanted, `{x,y}` is a list,
    /// anything else a text. A dot in a name is written `\.`; a comma may be written `\,`, as Helm wants it.
    ///
    /// # Errors
    /// The text is not of this form.
    pub fn set(&mut self, text: &str) -> Result<(), Error> {
        let form = || Error::new(format!("{text:?} is not of the form name.of.value=VALUE"));
        let (path, value) = text.split_once('=').ok_or_else(form)?;
        let steps = steps(path);
        if steps.iter().any(|step| step.is_empty() || step.contains('[')) {
            return Err(form());
        }
        let mut value = match wanted(&steps)?.as_deref() {
            Some("string") => Value::String(value.replace("\\,", ",")),
            _ => typed(value.trim()),
        };
        for step in steps.into_iter().rev() {
            value = Value::Object(Map::from_iter([(step, value)]));
        }
        if let Value::Object(map) = value {
            merge(&mut self.given, map);
        }
        Ok(())
    }

    /// The values that an installation was given, from the data of its ConfigMap.
    ///
    /// # Errors
    /// The ConfigMap does not hold what `weft install` wrote.
    pub fn kept(data: &Value) -> Result<Self, Error> {
        let mut values = Self { ha: data["ha"] == "true", ..Self::default() };
        let text = data["values.yaml"].as_str();
        values.file(text.ok_or_else(|| Error::new("it has no values.yaml"))?)?;
        Ok(values)
    }

    /// All values as templates see them.
    ///
    /// # Errors
    /// A value that the chart does not know or cannot use.
    pub fn resolve(&self) -> Result<Value, Error> {
        let mut values = map(VALUES)?;
        if self.ha {
            merge(&mut values, map(HA)?);
        }
        let schema: Value = serde_json::from_str(SCHEMA).map_err(|error| Error::new(error.to_string()))?;
        check(&Value::Object(self.given.clone()), &schema, &mut Vec::new(), &schema)?;
        merge(&mut values, self.given.clone());
        let mut values = Value::Object(values);
        drop_nulls(&mut values);
        check(&values, &schema, &mut Vec::new(), &schema)?;
        Ok(values)
    }
}

/// Reads YAML.
pub(super) fn read(text: &str) -> Result<Value, Error> {
    if super::has_object(text) {
        serde_saphyr::from_str(text).map_err(|error| Error::new(error.to_string()))
    } else {
        Ok(Value::Null)
    }
}

fn map(text: &str) -> Result<Map<String, Value>, Error> {
    match read(text)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::new("values are a map")),
    }
}

/// Puts `over` on top of `under`.
fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Object(under)), Value::Object(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Takes away what was set to null, which is how a default is taken back. Source: Helm's own merging.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// The type that the schema wants at a path: a tag `12` is a text.
fn wanted(steps: &[String]) -> Result<Option<String>, Error> {
    let schema: Value = serde_json::from_str(SCHEMA).map_err(|error| Error::new(error.to_string()))?;
    let at = steps.iter().try_fold(&schema, |at, step| {
        at["properties"].get(step).or_else(|| at.get("additionalProperties").filter(|it| it.is_object()))
    });
    Ok(at.and_then(|at| at["type"].as_str()).map(str::to_owned))
}

/// The names of a path; `\.` is a dot in a name.
fn steps(path: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    let mut escaped = false;
    for letter in path.chars() {
        match (letter, steps.last_mut()) {
            ('\\', _) if !escaped => escaped = true,
            ('.', _) if !escaped => steps.push(String::new()),
            (letter, last) => {
                escaped = false;
                last.into_iter().for_each(|last| last.push(letter));
            }
        }
    }
    steps
}

/// A value of `--set`. Source: Helm, whose typing this is.
fn typed(text: &str) -> Value {
    if let Some(list) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        return Value::Array(list.split(',').filter(|text| !text.is_empty()).map(typed).collect());
    }
    let text = text.replace("\\,", ",");
    let text = text.as_str();
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        _ => match text.parse::<i64>() {
            Ok(number) if text == "0" || !text.starts_with('0') => number.into(),
            _ => Value::String(text.to_owned()),
        },
    }
}

/// Holds a value against the chart's schema, which is JSON Schema's plainest part.
fn check(value: &Value, schema: &Value, path: &mut Vec<String>, whole: &Value) -> Result<(), Error> {
    let place = path.join(".");
    let kind = schema["type"].as_str().unwrap_or_default();
    let fits = match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        _ => true,
    };
    if value.is_null() {
        return Ok(());
    }
    if !fits {
        return Err(Error::new(format!("{place}: {value} is no {kind}")));
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        let known: Vec<String> = known.iter().map(Value::to_string).collect();
        return Err(Error::new(format!("{place}: {value} is none of {}", known.join(", "))));
    }
    if schema["minLength"] == 1 && value == "" {
        return Err(Error::new(format!("{place} is empty")));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && number < least
    {
        return Err(Error::new(format!("{place}: {number} is below {least}")));
    }
    if let (Some(most), Some(number)) = (schema["maximum"].as_i64(), value.as_i64())
        && number > most
    {
        return Err(Error::new(format!("{place}: {number} is above {most}")));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        path.push(name.clone());
        match schema["properties"].get(name).or_else(|| schema.get("additionalProperties")) {
            Some(schema) if schema.is_object() => check(value, schema, path, whole)?,
            _ if schema["additionalProperties"] == Value::Bool(false) => return Err(unknown(path, whole)),
            _ => {}
        }
        path.pop();
    }
    for value in value.as_array().into_iter().flatten() {
        check(value, &schema["items"], path, whole)?;
    }
    Ok(())
}

/// Says that there is no such value, and which was perhaps meant.
fn unknown(path: &[String], schema: &Value) -> Error {
    let asked = path.join(".");
    let mut known = Vec::new();
    names(schema, &mut Vec::new(), &mut known);
    let last = path.last().map(String::as_str).unwrap_or_default();
    let distance = |name: &String| {
        let same_end = name.rsplit('.').next() == Some(last);
        if same_end { 0 } else { edits(name, &asked) }
    };
    let nearest =
        known.iter().min_by_key(|name| distance(name)).filter(|name| distance(name) <= asked.len() / 3 + 1);
    let hint = nearest.map(|name| format!(": is {name} meant?")).unwrap_or_default();
    Error::new(format!("there is no value {asked}{hint} (k8s/chart/values.yaml describes them all)"))
}

/// The names of all values, `a.b`.
fn names(schema: &Value, path: &mut Vec<String>, out: &mut Vec<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        out.push(path.join("."));
        names(schema, path, out);
        path.pop();
    }
}

/// How many letters must change to make one text the other.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut next = vec![index + 1];
        for (at, other) in right.iter().enumerate() {
            let here = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let change = here(&row, at) + usize::from(letter != *other);
            next.push(change.min(here(&row, at + 1) + 1).min(here(&next, at) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
