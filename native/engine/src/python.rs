//! The Python module `sealbus_regorus`.

use std::panic;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyString};

use crate::policy::{Fault, Limits, Policy as Compiled, Rules};

/// Microseconds and an answer.
type Told<'py> = (u64, Option<Bound<'py, PyAny>>);

#[pyclass(frozen)]
struct Policy(Compiled);

#[pymethods]
impl Policy {
    #[new]
    fn new(py: Python<'_>, modules: Vec<(String, String)>, data: String) -> PyResult<Self> {
        py.detach(|| Compiled::compile(modules, data)).map(Self).map_err(PyValueError::new_err)
    }

    /// Add JSON objects to the data of the policy, for all who ask from now on.
    fn add(&self, py: Python<'_>, parts: Vec<String>) -> PyResult<()> {
        py.detach(|| self.0.add(&parts)).map_err(PyValueError::new_err)
    }

    /// Return how many objects had been added to the data by which it answers; and for each document its microseconds, and the
    /// answer: a text of JSON, None if it is late, or bytes, the text of an error.
    ///
    /// With `apart` other threads run Python meanwhile, and this one may have to wait for them afterwards.
    #[pyo3(signature = (one, batch, documents, *, each, whole, apart))]
    #[allow(clippy::too_many_arguments)]
    fn ask<'py>(
        &self,
        py: Python<'py>,
        one: &str,
        batch: Option<&str>,
        documents: Vec<PyBackedBytes>,
        each: f64,
        whole: f64,
        apart: bool,
    ) -> (usize, Vec<Told<'py>>) {
        let seconds = |given: f64| Duration::try_from_secs_f64(given).unwrap_or_default();
        let limits = Limits { each: seconds(each), all: seconds(whole) };
        let rules = Rules { one, batch };
        let (added, answers) = if apart {
            py.detach(|| self.0.ask(rules, &documents, limits))
        } else {
            self.0.ask(rules, &documents, limits)
        };
        let told = answers.into_iter().map(|answer| {
            let said = match answer.found {
                Ok(json) => Some(PyString::new(py, &json).into_any()),
                Err(Fault::Late) => None,
                Err(Fault::Failed(text)) => Some(PyBytes::new(py, text.as_bytes()).into_any()),
            };
            (u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX), said)
        });
        (added, told.collect())
    }
}

#[pymodule]
fn sealbus_regorus(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // A panic is an answer. Its message may quote the question, and is nothing for stderr.
    panic::set_hook(Box::new(|_| {}));
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Policy>()
}
