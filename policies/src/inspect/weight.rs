//! Weighs the code of a module before it is compiled. A compiler takes time and memory out of proportion to the bytes it
//! reads: measured, 90 KB of branches over ten thousand locals took it minutes and three gigabytes. Compiles nothing.

use wasmparser::{BinaryReaderError, FunctionBody, Operator, TypeSectionReader};

use crate::module::Rejection;

/// Functions of all core modules, and those between module and site. Each costs some code around it.
const FUNCTIONS_MAX: u32 = 2_000;
/// Types of all core modules.
const TYPES_MAX: u32 = 1_000;
/// Bytes of one function: what is alive at once costs the square of it. The longest of the default policies has a quarter
/// of it, at most.
const BODY_MAX: usize = 16 << 10;
/// Branches times values that may flow along each, summed over all functions. The default policies have a tenth of it; at
/// this weight the worst code known takes about a second and 50 MiB.
const WEIGHT_MAX: u64 = 250_000;

/// What was weighed so far.
#[derive(Debug, Default)]
pub(super) struct Weight {
    functions: u32,
    types: u32,
    /// Parameters and results of the widest type: a block may carry as many.
    widest: u64,
    branches: u64,
}

fn broken(error: BinaryReaderError) -> Rejection {
    Rejection::new("not_a_component", format!("not a WebAssembly component: {error}"))
}

impl Weight {
    /// The types of a core module; they come before its code.
    pub(super) fn types(&mut self, types: TypeSectionReader<'_>) -> Result<(), Rejection> {
        for ty in types.into_iter_err_on_gc_types() {
            let ty = ty.map_err(broken)?;
            self.types += 1;
            if self.types > TYPES_MAX {
                return Err(Rejection::new("limits", format!("has more than {TYPES_MAX} types")));
            }
            self.widest = self.widest.max((ty.params().len() + ty.results().len()) as u64);
        }
        Ok(())
    }

    /// A function between module and site.
    pub(super) fn bridge(&mut self) -> Result<(), Rejection> {
        self.functions += 1;
        if self.functions > FUNCTIONS_MAX {
            return Err(Rejection::new("limits", format!("has more than {FUNCTIONS_MAX} functions")));
        }
        Ok(())
    }

    /// A function of a core module.
    pub(super) fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), Rejection> {
        self.bridge()?;
        let bytes = body.range().len();
        if bytes > BODY_MAX {
            let why = format!("has a function of {bytes} bytes; one may have {BODY_MAX}");
            return Err(Rejection::new("limits", why));
        }
        let mut values = self.widest;
        for local in body.get_locals_reader().map_err(broken)? {
            values = values.saturating_add(local.map_err(broken)?.0.into());
        }
        let mut branches: u64 = 0;
        for operator in body.get_operators_reader().map_err(broken)? {
            branches += match operator.map_err(broken)? {
                Operator::Block { .. }
                | Operator::Loop { .. }
                | Operator::If { .. }
                | Operator::Else
                | Operator::Br { .. }
                | Operator::BrIf { .. } => 1,
                Operator::BrTable { targets } => u64::from(targets.len()) + 1,
                _ => 0,
            };
        }
        self.branches = self.branches.saturating_add(branches.saturating_mul(values));
        if self.branches > WEIGHT_MAX {
            let why = format!(
                "branches too much: branches times values come to more than {WEIGHT_MAX}; smaller functions weigh less"
            );
            return Err(Rejection::new("limits", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmparser::{Parser, Payload};

    #[test]
    fn the_default_policies_weigh_a_tenth_of_what_may_be() {
        let (mut weight, mut longest) = (Weight::default(), 0);
        for payload in Parser::new(0).parse_all(crate::DEFAULT) {
            match payload.unwrap() {
                Payload::TypeSection(types) => weight.types(types).unwrap(),
                Payload::CodeSectionEntry(body) => {
                    longest = longest.max(body.range().len());
                    weight.function(&body).unwrap();
                }
                _ => {}
            }
        }
        assert!(weight.branches > 100 && weight.branches <= WEIGHT_MAX / 10, "{weight:?}");
        assert!(weight.functions <= FUNCTIONS_MAX / 10, "{weight:?}");
        assert!(longest <= BODY_MAX / 4, "its longest function has {longest} bytes");
    }
}
