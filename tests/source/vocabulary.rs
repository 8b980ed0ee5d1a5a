//! The words: names and comments speak the language of DNS, of Scylla and of service discovery, without metaphors.

use super::sources;

/// Words that this code once had for something that the field has a word for, each with that word.
const OLD_WORDS: [(&str, &str); 53] = [
    ("nobody", "no node, no client"),
    ("whoever", "each node that, a client that"),
    ("belief", "membership"),
    ("believe", "accept"),
    ("testimony", "evidence"),
    ("neighbour", "the other zones"),
    ("rota", "candidates"),
    ("errand", "poll"),
    ("lately", "recently"),
    ("crowd", "many zones"),
    ("dealer", "worker"),
    ("deck", "shuffle bag"),
    ("seat", "cached zone"),
    ("tally", "counters"),
    ("tallies", "counters"),
    ("desk", "forward task"),
    ("hesitation", "hedge"),
    ("doubts", "penalty"),
    ("weather", "faults of the outside world"),
    ("everyday", "common"),
    ("floor", "layer"),
    ("room", "module"),
    ("house", "crate"),
    ("lane", "path"),
    ("complaint", "diagnostic"),
    ("mistake", "error"),
    ("hears", "gets, is asked"),
    ("hearing", "asking"),
    ("news", "outcome, change"),
    ("cadence", "interval"),
    ("patient", "long timeout"),
    ("impatient", "short timeout"),
    ("impatience", "second signal"),
    ("eager", "short interval"),
    ("ripen", "advance"),
    ("hasten", "pull forward"),
    ("standings", "health table"),
    ("keeper", "writer"),
    ("outfit", "TLS setup"),
    ("alarm", "failure guard"),
    ("brief", "summary"),
    ("edition", "list version"),
    ("stray", "no zone"),
    ("door", "interface"),
    ("told", "reported, returned"),
    ("whom", "which node"),
    ("anybody", "any node"),
    ("somebody", "a node, a person"),
    ("everybody", "unscoped, all nodes"),
    ("judgement", "decision"),
    ("heard", "asked, answered"),
    ("believed", "accepted"),
    ("liar", "node with a wrong list"),
];

/// Names that users depend on and that stay: the metric `fast_lane_total`.
const KEPT: [&str; 1] = ["\"fast_lane\""];

/// The words of a text in lower case: `SeatMap`, `seat_map` and "a seat" all have the word "seat".
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    for character in text.chars().chain([' ']) {
        let begins = character.is_uppercase() && before.is_lowercase();
        if (begins || !character.is_alphabetic()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if character.is_alphabetic() {
            word.extend(character.to_lowercase());
        }
        before = character;
    }
    words
}

fn old_words(text: &str) -> Vec<&'static str> {
    let words = words(&KEPT.iter().fold(text.to_owned(), |text, kept| text.replace(kept, "")));
    let has = |old: &str| words.iter().any(|word| word == old || word.strip_suffix('s') == Some(old));
    OLD_WORDS.iter().map(|(old, _)| *old).filter(|old| has(old)).collect()
}

#[test]
fn names_and_comments_use_the_words_of_the_field() {
    let mut found = Vec::new();
    for source in sources("src") {
        for (number, line) in source.text.lines().enumerate() {
            for old in old_words(line) {
                let new = OLD_WORDS.iter().find(|(word, _)| *word == old).unwrap().1;
                found.push(format!("{}:{}: {old:?}; say: {new}", source.path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

#[test]
fn words_are_found_in_names_and_in_prose() {
    assert_eq!(words("fn fast_lane(SeatMap) // a seat's"), ["fn", "fast", "lane", "seat", "map", "a", "seat", "s"]);
    assert_eq!(old_words("struct SeatMap;"), ["seat"]);
    assert_eq!(old_words("// two seats"), ["seat"]);
    assert_eq!(old_words(r#"counter("fast_lane")"#), [""; 0]);
    assert_eq!(old_words("a broom, a planet, an explanation"), [""; 0]);
}
