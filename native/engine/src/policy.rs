//! A compiled policy that is asked many questions at once, from any thread.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

use crate::builtins;
use crate::json::{written, written_all};
use crate::question::Question;

/// Questions that are evaluated together: the best of 1 to 256, as measured.
const TOGETHER: usize = 16;
/// Steps of regorus between two looks at the clock: a few decisions.
const STEPS: NonZeroU32 = NonZeroU32::MIN.saturating_add(511);

/// Why there is no answer. The text of an error may quote the question: it is read for its place alone.
#[derive(Debug, PartialEq)]
pub enum Fault {
    Late,
    Failed(String),
}

pub struct Answer {
    /// How long it took, or its share where several were evaluated together.
    pub took: Duration,
    /// Compact JSON; the text `<undefined>` for a rule without a value.
    pub found: Result<String, Fault>,
}

/// The rules that are asked: `one` about the input, and `batch`, if there is one, about each item of `input.batch`.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub one: &'a str,
    pub batch: Option<&'a str>,
}

/// How long one evaluation may take, and all of them.
#[derive(Clone, Copy)]
pub struct Limits {
    pub each: Duration,
    pub all: Duration,
}

type Modules = Vec<(String, String)>;

/// A policy over its data, which may grow. Whoever asks has an engine alone meanwhile: one that waits, or another that is
/// compiled.
pub struct Policy {
    modules: Modules,
    state: Mutex<State>,
    adding: Mutex<()>,
}

struct State {
    /// What was compiled first, and each part that was added since.
    data: Vec<Arc<str>>,
    waiting: Vec<Compiled>,
}

impl Policy {
    /// Compile `modules`, pairs of path and text, over the JSON object `data`; the error is regorus' own text.
    pub fn compile(modules: Modules, data: String) -> Result<Self, String> {
        let data = vec![Arc::from(data)];
        let waiting = vec![Compiled::of(&modules, &data)?];
        Ok(Self { modules, state: Mutex::new(State { data, waiting }), adding: Mutex::new(()) })
    }

    /// Add the JSON objects `parts` to the data, for all who ask from now on. The error is regorus' own text, and adds nothing.
    ///
    /// They are tried on an engine that waits. Without one they are tried by whoever asks next: to compile takes long.
    pub fn add(&self, parts: &[String]) -> Result<(), String> {
        let _one = locked(&self.adding);
        let parts: Vec<Arc<str>> = parts.iter().map(|part| Arc::from(part.as_str())).collect();
        let (waiting, missing) = self.waiting();
        let tried = match waiting {
            Some(mut compiled) => {
                compiled.add(&missing)?;
                compiled.add(&parts)?;
                Some(compiled)
            }
            None => None,
        };
        let mut state = locked(&self.state);
        state.data.extend(parts);
        state.waiting.extend(tried);
        Ok(())
    }

    /// Return an answer for each of the JSON `documents`, in order, and how many parts had been added to the data by which
    /// they were made. What has not had its turn in time is late.
    pub fn ask<D: AsRef<[u8]>>(&self, rules: Rules<'_>, documents: &[D], limits: Limits) -> (usize, Vec<Answer>) {
        match self.taken() {
            Ok(compiled) => {
                let answers = compiled.ask(rules, documents, limits);
                let added = compiled.parts - 1;
                locked(&self.state).waiting.push(compiled);
                (added, answers)
            }
            // It was compiled before: this is for want of memory, or the like.
            Err(text) => {
                let failed = |_| Answer::failed(Duration::ZERO, Fault::Failed(text.clone()));
                (0, documents.iter().map(failed).collect())
            }
        }
    }

    /// Return an engine that has all of the data.
    fn taken(&self) -> Result<Compiled, String> {
        let (waiting, missing) = self.waiting();
        let Some(mut compiled) = waiting else { return Compiled::of(&self.modules, &missing) };
        compiled.add(&missing)?;
        Ok(compiled)
    }

    /// Return an engine that waits, if there is one, and the data that it has not.
    fn waiting(&self) -> (Option<Compiled>, Vec<Arc<str>>) {
        let mut state = locked(&self.state);
        let waiting = state.waiting.pop();
        let from = waiting.as_ref().map_or(0, |compiled| compiled.parts);
        (waiting, state.data[from..].to_vec())
    }
}

/// Nothing that is done under this lock leaves anything half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine that no question has been put to. Each evaluation has a copy, which shares all that was compiled and costs less
/// than a microsecond: an error or a panic leaves an engine in the middle of a rule.
struct Compiled {
    engine: Engine,
    /// How many parts of the data it has.
    parts: usize,
}

// SAFETY: the counts of regorus' `Rc` are not atomic, but all that share one are inside one `Compiled`: nothing that `of`, `add`
// and `ask` take or return holds a value of regorus, which has none in statics, and in thread-locals only while it parses. And
// one thread at a time has a `Compiled`, handed on through the lock of `Policy`.
unsafe impl Send for Compiled {}

impl Compiled {
    fn of(modules: &[(String, String)], data: &[Arc<str>]) -> Result<Self, String> {
        let engine = caught(|| {
            let mut engine = Engine::new();
            engine.set_gather_prints(true);
            builtins::add_to(&mut engine)?;
            #[cfg(test)]
            engine.add_extension("test.panic".to_owned(), 1, Box::new(|given| panic!("it is {}", given[0])))?;
            for (path, text) in modules {
                engine.add_policy(path.clone(), text.clone())?;
            }
            for part in data {
                engine.add_data_json(part)?;
            }
            // regorus analyses modules at the first question.
            engine.eval_query("true".to_owned(), false)?;
            Ok(engine)
        })?;
        Ok(Self { engine, parts: data.len() })
    }

    /// Add the JSON objects `parts`; after an error the engine is not to be used.
    fn add(&mut self, parts: &[Arc<str>]) -> Result<(), String> {
        if parts.is_empty() {
            return Ok(());
        }
        caught(|| {
            for part in parts {
                self.engine.add_data_json(part)?;
            }
            // It analyses the modules again.
            self.engine.eval_query("true".to_owned(), false)?;
            Ok(())
        })?;
        self.parts += parts.len();
        Ok(())
    }

    fn ask<D: AsRef<[u8]>>(&self, rules: Rules<'_>, documents: &[D], limits: Limits) -> Vec<Answer> {
        let started = Instant::now();
        let mut answers = Vec::with_capacity(documents.len());
        for some in documents.chunks(TOGETHER) {
            let left = || limits.each.min(limits.all.saturating_sub(started.elapsed()));
            let together = rules.batch.filter(|_| some.len() > 1).and_then(|batch| self.together(batch, some, left()));
            match together {
                Some(found) => answers.extend(found),
                None => answers.extend(some.iter().map(|one| self.alone(rules.one, one.as_ref(), left()))),
            }
        }
        answers
    }

    /// Return the answers to several questions at once; if anything fails, it is unknown whose fault it is.
    fn together<D: AsRef<[u8]>>(&self, rule: &str, documents: &[D], limit: Duration) -> Option<Vec<Answer>> {
        if limit.is_zero() {
            return None;
        }
        let begun = Instant::now();
        let found = self.evaluate(rule, limit, written_all, || {
            let asked = documents.iter().map(|one| read(one.as_ref())).collect::<anyhow::Result<Vec<_>>>()?;
            Ok(Value::from(BTreeMap::from([(Value::from("batch"), Value::from(asked))])))
        });
        let found = found.ok().filter(|found| found.len() == documents.len())?;
        let took = begun.elapsed() / u32::try_from(documents.len()).unwrap_or(u32::MAX);
        Some(found.into_iter().map(|one| Answer { took, found: Ok(one) }).collect())
    }

    fn alone(&self, rule: &str, document: &[u8], limit: Duration) -> Answer {
        let begun = Instant::now();
        if limit.is_zero() {
            return Answer::failed(limit, Fault::Late);
        }
        let found = self.evaluate(rule, limit, written, || read(document));
        let took = begun.elapsed();
        // regorus looks at the clock now and then only: an answer may come after the limit.
        let found = if took < limit { found.map_err(Fault::Failed) } else { Err(Fault::Late) };
        Answer { took, found }
    }

    /// Return the value of `rule` for the `input`, as `written`.
    fn evaluate<T>(
        &self,
        rule: &str,
        limit: Duration,
        written: impl FnOnce(&Value) -> anyhow::Result<T>,
        input: impl FnOnce() -> anyhow::Result<Value>,
    ) -> Result<T, String> {
        let mut engine = self.engine.clone();
        let found = caught(|| {
            engine.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval: STEPS });
            engine.set_input(input()?);
            written(&engine.eval_rule(rule.to_owned())?)
        });
        // What panicked may panic again while it is dropped.
        let dropped = caught(|| {
            drop(engine);
            Ok(())
        });
        dropped.and(found)
    }
}

impl Answer {
    fn failed(took: Duration, fault: Fault) -> Self {
        Self { took, found: Err(fault) }
    }
}

fn read(document: &[u8]) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice::<Question>(document)?.0)
}

/// Return what `ask` returns, or the text of its error or panic.
fn caught<T>(ask: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(panic) => Err(said(panic.as_ref())),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> = Rules { one: "data.p.decision", batch: Some("data.p.batch") };
    const PLENTY: Limits = Limits { each: Duration::from_secs(60), all: Duration::from_secs(600) };

    fn policy(body: &str) -> Policy {
        let text = format!(
            "package p\n\ndecision := decide(input)\nbatch := [decide(one) | some one in input.batch]\n\n{body}\n"
        );
        Policy::compile(
            vec![("p.rego".to_owned(), text)],
            r#"{"k": {"n": 1, "ten": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}"#.to_owned(),
        )
        .expect("it compiles")
    }

    fn found(policy: &Policy, rules: Rules<'_>, limits: Limits, documents: &[String]) -> Vec<Result<String, Fault>> {
        policy.ask(rules, documents, limits).1.into_iter().map(|answer| answer.found).collect()
    }

    #[test]
    fn a_batch_gets_the_answers_of_each_alone() {
        let policy = policy(r#"decide(one) := {"n": one.n + data.k.n, "of": {one.t, "a"}}"#);
        let documents: Vec<_> = (0..50).map(|n| format!(r#"{{"n": {n}, "t": "é{n}"}}"#)).collect();
        let together = found(&policy, RULES, PLENTY, &documents);
        assert_eq!(together, found(&policy, Rules { batch: None, ..RULES }, PLENTY, &documents));
        assert_eq!(together[7], Ok(r#"{"n":8,"of":["a","é7"]}"#.to_owned()));
    }

    #[test]
    fn one_that_panics_harms_no_other() {
        let policy = policy(r#"decide(one) := {"n": test.panic(one.n)} if one.n == 7 else := {"n": one.n}"#);
        let documents: Vec<_> = (0..256).map(|n| format!(r#"{{"n": {n}}}"#)).collect();
        for (number, one) in found(&policy, RULES, PLENTY, &documents).into_iter().enumerate() {
            match number {
                7 => assert_eq!(one, Err(Fault::Failed("it is 7".to_owned()))),
                _ => assert_eq!(one, Ok(format!(r#"{{"n":{number}}}"#))),
            }
        }
    }

    #[test]
    fn one_that_runs_away_is_late_alone() {
        let policy = policy(
            "decide(one) := n if {\n\tone.n == 7\n\tn := count([1 | some a in many; some b in many; some c in many; a == b; b == c])\n\
             } else := one.n\nmany := [n | some a in data.k.ten; some b in data.k.ten; n := a * b]",
        );
        let documents: Vec<_> = (0..20).map(|n| format!(r#"{{"n": {n}}}"#)).collect();
        let limits = Limits { each: Duration::from_millis(200), ..PLENTY };
        for (number, one) in found(&policy, RULES, limits, &documents).into_iter().enumerate() {
            assert_eq!(one, if number == 7 { Err(Fault::Late) } else { Ok(number.to_string()) });
        }
    }

    #[test]
    fn nothing_is_decided_after_the_last_moment() {
        let policy = policy("decide(one) := one");
        let limits = Limits { all: Duration::ZERO, ..PLENTY };
        let documents = vec!["1".to_owned(), "2".to_owned()];
        assert_eq!(found(&policy, RULES, limits, &documents), vec![Err(Fault::Late), Err(Fault::Late)]);
    }

    #[test]
    fn what_is_not_a_question_fails_alone() {
        let policy = policy("decide(one) := one");
        let documents: Vec<_> = ["1", "1.5", "", "[1}", "9007199254740993", "-1"].map(str::to_owned).into();
        let answers = found(&policy, RULES, PLENTY, &documents);
        let right: Vec<_> = answers.iter().map(|one| one.as_deref().unwrap_or("none")).collect();
        assert_eq!(right, ["1", "none", "none", "none", "9007199254740993", "-1"]);
    }

    #[test]
    fn whole_numbers_have_all_their_digits() {
        let policy = policy(
            r#"decide(one) := {
	"n": n,
	"items": [n, {n}],
	"keys": {n: 1},
	"text": sprintf("%v", [n]),
	"long": count(split(sprintf("%v", [n]), "")),
} if { n := one.a * one.b }"#,
        );
        for (a, b, n) in [
            ("4503599627370496", "4503599627370496", "20282409603651670423947251286016"),
            ("4294967296", "4294967296", "18446744073709551616"),
            ("4294967295", "4294967297", "18446744073709551615"),
            ("-4294967296", "4294967296", "-18446744073709551616"),
            ("-2147483648", "4294967296", "-9223372036854775808"),
            ("10000000000000", "100000000000", "1000000000000000000000000"),
            ("0", "-7", "0"),
        ] {
            let long = n.len();
            let whole = format!(r#"{{"items":[{n},[{n}]],"keys":{{"{n}":1}},"long":{long},"n":{n},"text":"{n}"}}"#);
            let documents = vec![format!(r#"{{"a": {a}, "b": {b}}}"#); 2];
            assert_eq!(found(&policy, RULES, PLENTY, &documents), vec![Ok(whole.clone()), Ok(whole)]);
        }
    }

    #[test]
    fn a_fraction_is_no_answer() {
        for body in ["decide(one) := [one, 0.5]", r#"decide(one) := sprintf("%v", [0.5])"#] {
            let answers = found(&policy(body), RULES, PLENTY, &["1".to_owned()]);
            assert!(matches!(answers[..], [Err(Fault::Failed(_))]), "{body}");
        }
    }

    #[test]
    fn what_grows_is_bounded() {
        let doubled = |first: &str, step: &str| {
            let steps: Vec<_> =
                (1..40).map(|n| step.replace("old", &format!("x{}", n - 1)).replace("new", &format!("x{n}"))).collect();
            format!("decide(one) := x39 if {{\n\tx0 := {first}\n\t{}\n}}", steps.join("\n\t"))
        };
        for (first, step) in [
            (r#""ab""#, r#"new := concat("", [old, old])"#),
            (r#""ab""#, r#"new := sprintf("%v%v", [old, old])"#),
            (r#""aa""#, r#"new := replace(old, "a", old)"#),
            ("[1]", "new := array.concat(old, old)"),
            ("[1]", "new := [old, old]"),
        ] {
            let answers = found(&policy(&doubled(first, step)), RULES, PLENTY, &["{}".to_owned()]);
            assert!(matches!(answers[..], [Err(Fault::Failed(_))]), "{step}");
        }
    }

    #[test]
    fn two_threads_ask_at_once() {
        let policy = policy(r#"decide(one) := {"n": one.n}"#);
        let documents: Vec<_> = (0..200).map(|n| format!(r#"{{"n": {n}}}"#)).collect();
        std::thread::scope(|scope| {
            let asking = |_| scope.spawn(|| found(&policy, RULES, PLENTY, &documents));
            let all: Vec<_> = (0..4).map(asking).collect::<Vec<_>>().into_iter().map(|one| one.join()).collect();
            for answers in all {
                assert!(answers.expect("it ends").iter().all(Result::is_ok));
            }
        });
    }

    #[test]
    fn what_is_added_counts_for_all_who_ask_afterwards() {
        let policy = policy(r#"decide(one) := object.get(data.k, one.t, "none")"#);
        let documents = vec![r#"{"t": "a"}"#.to_owned(), r#"{"t": "b"}"#.to_owned()];
        let asked = || {
            let (added, answers) = policy.ask(RULES, &documents, PLENTY);
            (added, answers.into_iter().map(|answer| answer.found.expect("it is found")).collect::<Vec<_>>())
        };
        // Two engines wait from here on.
        let (one, other) = (policy.taken().expect("it waits"), policy.taken().expect("it compiles"));
        locked(&policy.state).waiting.extend([one, other]);
        assert_eq!(asked(), (0, vec![r#""none""#.to_owned(); 2]));
        let add = |part: &str| policy.add(&[part.to_owned()]);
        add(r#"{"k": {"a": 1}}"#).expect("it is new");
        assert!(add(r#"{"k": {"a": 2}}"#).is_err());
        assert!(add("{").is_err());
        add(r#"{"k": {"b": {"c": []}}}"#).expect("it is new");
        for _ in 0..4 {
            assert_eq!(asked(), (2, vec!["1".to_owned(), r#"{"c":[]}"#.to_owned()]));
            let taken = policy.taken().expect("it has all");
            assert_eq!(taken.parts, 3);
        }
    }

    #[test]
    fn what_is_added_while_none_waits_counts_too_and_fails_all_where_it_does_not_fit() {
        let policy = policy("decide(one) := count(data.k)");
        let asked = policy.taken().expect("it waits");
        policy.add(&[r#"{"k": {"a": 1}}"#.to_owned(), r#"{"k": {"b": 1}}"#.to_owned()]).expect("nobody tries it");
        assert!(locked(&policy.state).waiting.is_empty());
        locked(&policy.state).waiting.push(asked);
        let (added, answers) = policy.ask(RULES, &["1"], PLENTY);
        assert_eq!((added, &answers[0].found), (2, &Ok("4".to_owned())));
        let asked = policy.taken().expect("it waits");
        policy.add(&[r#"{"k": {"a": 2}}"#.to_owned()]).expect("nobody tries it");
        locked(&policy.state).waiting.push(asked);
        for _ in 0..2 {
            let (_, answers) = policy.ask(RULES, &["1"], PLENTY);
            assert!(matches!(answers[0].found, Err(Fault::Failed(_))));
        }
    }

    #[test]
    fn each_answer_is_by_the_data_of_its_number() {
        let policy = policy("decide(one) := count(data.k)");
        std::thread::scope(|scope| {
            let asking = |_| {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let (added, answers) = policy.ask(RULES, &["1", "2"], PLENTY);
                        for answer in answers {
                            assert_eq!(answer.found, Ok((added + 2).to_string()));
                        }
                    }
                })
            };
            let all: Vec<_> = (0..3).map(asking).collect();
            for number in 0..20 {
                policy.add(&[format!(r#"{{"k": {{"x{number}": 1}}}}"#)]).expect("it is new");
            }
            all.into_iter().for_each(|one| one.join().expect("it ends"));
        });
    }

    #[test]
    fn a_bad_policy_is_refused_with_its_place() {
        let refused = Policy::compile(vec![("p.rego".to_owned(), "package p\nx := {".to_owned())], "{}".to_owned());
        assert!(refused.err().is_some_and(|text| text.contains("p.rego:2:7")));
    }
}
