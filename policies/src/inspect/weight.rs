//! Weighs the code of a module before it is compiled. A compiler takes time and memory out of proportion to the bytes it
//! reads: measured, 90 KB of branches over ten thousand locals took it minutes and three gigabytes, and 16 KB of calls with
//! 300 results each a minute and two gigabytes. Compiles nothing.

use wasmparser::{
    BinaryReaderError, FuncValidator, FunctionBody, Operator, TypeSectionReader, ValidatorResources,
};

use crate::module::Rejection;

/// Functions of all core modules, and those between module and site. Each costs some code around it.
const FUNCTIONS_MAX: u32 = 2_000;
/// Types of all core modules.
const TYPES_MAX: u32 = 1_000;
/// Bytes of one function: what is alive at once costs the square of it. The longest of the default policies has a quarter
/// of it, at most.
const BODY_MAX: usize = 16 << 10;
/// Parameters and results of a type together. Those of the contract have 17 at most.
const WIDTH_MAX: usize = 64;
/// Joins times values that may be alive across each, summed over all functions. The default policies have a tenth of it;
/// at this weight the worst code known takes about a second and 50 MiB.
const JOINS_MAX: u64 = 250_000;
/// Units of [`work`], of which one takes a compiler about 12 microseconds: with all of them it needs a second or two. The
/// default policies have a tenth of it, at most.
const WORK_MAX: u64 = 100_000;
/// After so many units in one function, each takes twice as long; after twice as many, three times.
const WORK_SLOWS: u64 = 16_000;
/// Joins and work at the start of a function: fuel, clock and stack are looked at.
const ENTRY: (u64, u64) = (2, 16);

/// What was weighed so far.
#[derive(Debug, Default)]
pub(super) struct Weight {
    functions: u32,
    types: u32,
    /// Parameters and results of the widest type: a block may carry as many.
    widest: u64,
    joins: u64,
    work: u64,
    /// Bytes of the longest function.
    longest: usize,
}

fn broken(error: BinaryReaderError) -> Rejection {
    Rejection::new("not_a_component", format!("not a WebAssembly component: {error}"))
}

/// Joins that the compiler makes of an operator: places that the code reaches on more than one way.
fn joins(operator: &Operator<'_>) -> u64 {
    match operator {
        Operator::BrTable { targets } => u64::from(targets.len()) + 1,
        // Each element is copied by a loop of its own, forward or backward.
        Operator::TableCopy { .. } | Operator::TableInit { .. } => 16,
        // With a look at fuel and clock before, as in the head of a loop, since what they cost is not known.
        Operator::MemoryGrow { .. }
        | Operator::MemoryFill { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryInit { .. }
        | Operator::TableGrow { .. }
        | Operator::TableFill { .. } => 2,
        Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::Else
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        // Checks that end in a trap.
        | Operator::CallIndirect { .. }
        | Operator::ReturnCallIndirect { .. }
        | Operator::TableGet { .. }
        | Operator::TableSet { .. } => 1,
        _ if truncates(operator) => 1,
        _ => 0,
    }
}

/// Whether it makes a whole number of a float, or traps.
fn truncates(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::I32TruncF32S
            | Operator::I32TruncF32U
            | Operator::I32TruncF64S
            | Operator::I32TruncF64U
            | Operator::I64TruncF32S
            | Operator::I64TruncF32U
            | Operator::I64TruncF64S
            | Operator::I64TruncF64U
    )
}

/// What an operator costs the compiler even if nothing else is alive, measured in a function of a thousand bytes. `flow` is
/// how many values it takes and gives.
fn work(operator: &Operator<'_>, flow: u64) -> u64 {
    match operator {
        Operator::BrTable { targets } => 4 + u64::from(targets.len()),
        Operator::TableCopy { .. } | Operator::TableInit { .. } => 64,
        Operator::TableGrow { .. } | Operator::TableFill { .. } => 24,
        Operator::CallIndirect { .. } | Operator::ReturnCallIndirect { .. } => 16 + flow,
        Operator::Loop { .. }
        | Operator::MemoryGrow { .. }
        | Operator::MemoryFill { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryInit { .. } => 12,
        _ if truncates(operator) => 16,
        Operator::I32DivS | Operator::I64DivS | Operator::TableGet { .. } => 8,
        Operator::Call { .. } | Operator::ReturnCall { .. } => 1 + flow,
        Operator::LocalGet { .. }
        | Operator::LocalSet { .. }
        | Operator::LocalTee { .. }
        | Operator::I32Const { .. }
        | Operator::I64Const { .. }
        | Operator::Block { .. }
        | Operator::End
        | Operator::Drop
        | Operator::Nop => 0,
        // Integers only are without a check or a correction.
        _ => 4,
    }
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
            let width = ty.params().len() + ty.results().len();
            if width > WIDTH_MAX {
                let why = format!(
                    "has a type of {width} parameters and results; one may have {WIDTH_MAX} together"
                );
                return Err(Rejection::new("limits", why));
            }
            self.widest = self.widest.max(width as u64);
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

    /// A function of a core module, which is validated by the way: only the validator knows how many values lie on the
    /// stack at each place.
    pub(super) fn function(
        &mut self,
        body: &FunctionBody<'_>,
        validator: &mut FuncValidator<ValidatorResources>,
    ) -> Result<(), Rejection> {
        self.bridge()?;
        let bytes = body.range().len();
        if bytes > BODY_MAX {
            let why = format!("has a function of {bytes} bytes; one may have {BODY_MAX}");
            return Err(Rejection::new("limits", why));
        }
        self.longest = self.longest.max(bytes);
        validator.read_locals(&mut body.get_binary_reader()).map_err(broken)?;
        // Parameters are locals, too.
        let always = self.widest + u64::from(validator.len_locals());
        let (joins_here, mut here) = ENTRY;
        self.add(joins_here * always, here)?;
        let mut operators = body.get_operators_reader().map_err(broken)?;
        while !operators.eof() {
            let (operator, at) = operators.read_with_offset().map_err(broken)?;
            let before = validator.operand_stack_height();
            let flow =
                operator.operator_arity(&validator.visitor(at)).map_or(0, |(takes, gives)| takes + gives);
            validator.op(at, &operator).map_err(broken)?;
            let stack = before.max(validator.operand_stack_height());
            let units = work(&operator, flow.into());
            here += units;
            self.add(joins(&operator) * (always + u64::from(stack)), units + units * here / WORK_SLOWS)?;
        }
        let end = operators.original_position();
        operators.get_binary_reader().finish_expression(&validator.visitor(end)).map_err(broken)
    }

    fn add(&mut self, joins: u64, work: u64) -> Result<(), Rejection> {
        self.joins += joins;
        self.work += work;
        if self.joins > JOINS_MAX {
            let why = format!(
                "branches too much: branches times values come to more than {JOINS_MAX}; smaller functions weigh less"
            );
            return Err(Rejection::new("limits", why));
        }
        if self.work > WORK_MAX {
            let why = format!(
                "is too much work to compile: its code weighs more than {WORK_MAX}; less code in smaller functions weighs less"
            );
            return Err(Rejection::new("limits", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policies_weigh_a_tenth_of_what_may_be() {
        let weight = crate::inspect::weighed(crate::DEFAULT).unwrap();
        assert!(weight.joins > 100 && weight.joins <= JOINS_MAX / 10, "{weight:?}");
        assert!(weight.work > 100 && weight.work <= WORK_MAX / 10, "{weight:?}");
        assert!(weight.functions <= FUNCTIONS_MAX / 10, "{weight:?}");
        assert!(weight.longest <= BODY_MAX / 4, "{weight:?}");
    }
}
