//! The JSON Schema of the file, for editors and linters. It accepts every file that the parser accepts.

use serde_json::{Map, Value, json};

use super::{
    definitions::{Key, Kind},
    forward_keys::FORWARD_KEYS,
    server_keys::SERVER_KEYS,
    transfer_keys::TRANSFER_KEYS,
    zone_keys::ZONE_KEYS,
};

/// Durations begin with a number, and only the parser knows the units.
const DURATION_PATTERN: &str = "^\\s*[0-9]";

/// The schema, draft 7, which more tools know than later drafts.
pub fn schema() -> Value {
    let defaults: Vec<_> = ZONE_KEYS.into_iter().filter(|key| key.name != "seeds").collect();
    let mut zone = table(&ZONE_KEYS);
    zone["required"] = json!(["seeds"]);
    let mut forward = table(&FORWARD_KEYS);
    forward["required"] = json!(["upstreams"]);
    let mut transfer = table(&TRANSFER_KEYS);
    transfer["required"] = json!(["secondaries", "key"]);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The configuration of alternator-dns",
        "type": "object",
        "additionalProperties": false,
        "required": ["zones"],
        "properties": {
            "server": table(&SERVER_KEYS),
            "forward": forward,
            "transfer": transfer,
            "defaults": table(&defaults),
            "zones": { "type": "object", "minProperties": 1, "additionalProperties": zone },
        },
    })
}

fn table(keys: &[Key]) -> Value {
    let properties: Map<_, _> = keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn property(key: &Key) -> Value {
    let mut value = kind(key.kind);
    value["description"] = key.about.into();
    value
}

fn kind(of: Kind) -> Value {
    match of {
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Duration => json!({ "type": "string", "pattern": DURATION_PATTERN }),
        Kind::OneOf(texts) => json!({ "enum": texts }),
        Kind::List(entry) => json!({ "type": "array", "items": kind(*entry) }),
        Kind::Table(keys) => table(keys),
        Kind::Map => json!({ "type": "object", "additionalProperties": kind(Kind::Text) }),
        Kind::OffOr(other) => json!({ "anyOf": [{ "const": false }, kind(*other)] }),
        Kind::Either(one, other) => json!({ "anyOf": [kind(*one), kind(*other)] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;
    use std::path::Path;

    /// Whether a value fits a schema, for the words that this schema uses.
    fn fits(schema: &Value, value: &Value) -> bool {
        schema.as_object().unwrap().iter().all(|(word, rule)| match word.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match rule.as_str().unwrap() {
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                "string" => value.is_string(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("{other}"),
            },
            "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|number| number <= rule.as_i64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| !text.is_empty()),
            "pattern" => value.as_str().is_none_or(|text| text.trim_start().starts_with(|c: char| c.is_ascii_digit())),
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "items" => value.as_array().is_none_or(|list| list.iter().all(|entry| fits(rule, entry))),
            "anyOf" => rule.as_array().unwrap().iter().any(|schema| fits(schema, value)),
            "minProperties" => value.as_object().is_none_or(|table| !table.is_empty()),
            "required" => rule.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
            "properties" => {
                rule.as_object().unwrap().iter().all(|(key, rule)| value.get(key).is_none_or(|value| fits(rule, value)))
            }
            "additionalProperties" => value.as_object().is_none_or(|table| {
                let known = |key: &String| schema.get("properties").is_some_and(|known| known.get(key).is_some());
                table.iter().filter(|(key, _)| !known(key)).all(|(_, value)| rule != false && fits(rule, value))
            }),
            other => panic!("{other}"),
        })
    }

    fn value(text: &str) -> Value {
        serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
    }

    #[test]
    fn the_files_that_are_shipped_fit() {
        for file in ["example", "minimal", "proof-of-concept"] {
            let text = std::fs::read_to_string(format!("config/{file}.toml")).unwrap();
            assert!(fits(&schema(), &value(&text)), "{file}");
            // Also with every key that is commented out.
            let zone = value("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n");
            assert!(fits(&schema(), &zone));
        }
        for bad in [
            "[server]\nlisten = \"127.0.0.1:53\"\n[zones.\"a\"]\nseeds = []\n",
            "[zones.\"a\"]\nport = 8000\n",
            "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nhealth = true\n",
            "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\ntll = \"4s\"\n",
            "[defaults]\nseeds = [\"10.0.0.1\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
            "[zones]\n",
        ] {
            assert!(!fits(&schema(), &value(bad)), "{bad}");
        }
    }

    #[test]
    fn defaults_are_what_the_parser_fills_in() {
        let plain = "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n";
        let written = |keys: &[Key]| {
            let keys = keys.iter().filter(|key| key.default.is_some_and(|default| default != "{}"));
            keys.map(|key| format!("{} = {}\n", key.name, key.default.unwrap())).collect::<String>()
        };
        let sub = |keys: &[Key], name: &str| {
            let key = keys.iter().find(|key| key.name == name).unwrap();
            format!("{name} = {{ {} }}\n", written(key.kind.table().unwrap()).trim_end().replace('\n', ", "))
        };
        let server = format!("[server]\n{}{}", written(&SERVER_KEYS), sub(&SERVER_KEYS, "tcp"));
        let zone = format!("{}{}", written(&ZONE_KEYS), sub(&ZONE_KEYS, "health"));
        let parse = |text: &str| Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap();
        let (expected, explicit) = (parse(plain), parse(&format!("{server}{plain}{zone}")));
        let mut server = explicit.server;
        server.listen_by_default = true;
        assert_eq!((server, explicit.zones), (expected.server, expected.zones));
    }

    proptest! {
        #[test]
        fn what_the_parser_accepts_fits(
            name in proptest::sample::select(ZONE_KEYS.map(|key| key.name).to_vec()),
            value_text in "(0|1|8000|70000|true|false|\"(4s|1m 30s|10.0.0.1|http|all|prod|)\"|\\[\\]|\\[\"10.0.0.0/8\"\\]|\\{\\}|\\{ (rise|interval|ca) = (2|\"1s\") \\}|\\[\\{ datacenter = (\"a\"|\\[\"a\", \"b\"\\]) \\}\\])",
        ) {
            let text = if name == "seeds" { format!("[zones.\"a\"]\nseeds = {value_text}\n") }
                else { format!("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n{name} = {value_text}\n") };
            let accepted = Config::parse(Path::new("z.toml"), text.as_bytes()).is_ok();
            prop_assert!(!accepted || fits(&schema(), &value(&text)), "{}", text);
        }
    }
}
