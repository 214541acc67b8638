//! Size expressions as torch.export writes them: sympy's `srepr` (`Add(Symbol('s0', integer=True), Integer(1))`), and the
//! infix text of `range_constraints` keys (`2*s16`).

use crate::error::{ImportError, Result};
use delegraph_ir::{Expr, ExprOp};

const MAX_DEPTH: usize = 64;
/// Longest text and largest expression that are accepted: real ones have some dozens of terms.
const MAX_TEXT: usize = 16 << 10;
const MAX_TERMS: usize = 2048;

/// Parses sympy's `srepr`; `rename` gives each symbol its name in the module.
pub(crate) fn parse(text: &str, rename: &dyn Fn(&str) -> String) -> Result<Expr> {
    Parser::new(text, rename).and_then(|mut p| {
        let expr = p.srepr(0)?;
        p.end()?;
        Ok(expr)
    })
}

/// Parses infix text: `+ - * // %`, parentheses, names and integers.
pub(crate) fn parse_infix(text: &str, rename: &dyn Fn(&str) -> String) -> Result<Expr> {
    Parser::new(text, rename).and_then(|mut p| {
        let expr = p.sum(0)?;
        p.end()?;
        Ok(expr)
    })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    rename: &'a dyn Fn(&str) -> String,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, rename: &'a dyn Fn(&str) -> String) -> Result<Parser<'a>> {
        match text.len() <= MAX_TEXT {
            true => Ok(Parser { text, at: 0, rename }),
            false => Err(ImportError::malformed(format!(
                "a size expression of {} bytes",
                text.len()
            ))),
        }
    }

    fn bad(&self, what: &str) -> ImportError {
        let shown: String = self.text.chars().take(200).collect();
        ImportError::malformed(format!("size expression `{shown}`: {what} at byte {}", self.at))
    }

    fn unknown(&self, name: &str) -> ImportError {
        let shown: String = self.text.chars().take(200).collect();
        ImportError::unsupported(format!("size expression `{shown}`: `{name}` is not supported"))
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        match self.eat(token) {
            true => Ok(()),
            false => Err(self.bad(&format!("expected `{token}`"))),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.skip_space();
        match self.at == self.text.len() {
            true => Ok(()),
            false => Err(self.bad("unexpected text")),
        }
    }

    /// The longest prefix of accepted characters.
    fn word(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        self.skip_space();
        let rest = &self.text[self.at..];
        let length = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn quoted(&mut self) -> Result<&'a str> {
        self.skip_space();
        let rest = &self.text[self.at..];
        let quote = match rest.chars().next() {
            Some(q @ ('\'' | '"')) => q,
            _ => return Err(self.bad("expected a quoted name")),
        };
        let Some(length) = rest[1..].find(quote) else {
            return Err(self.bad("unclosed quote"));
        };
        self.at += length + 2;
        Ok(&rest[1..=length])
    }

    fn integer(&mut self) -> Result<i64> {
        let negative = self.eat("-");
        let digits = self.word(|c| c.is_ascii_digit());
        // Magnitudes stay below 2^62, so that no later negation can overflow.
        match digits.parse::<i64>() {
            Ok(value) if value < 1 << 62 => Ok(if negative { -value } else { value }),
            _ => Err(self.bad("expected an integer")),
        }
    }

    /// Skips `, integer=True` and the like up to the closing parenthesis.
    fn close_call(&mut self) -> Result<()> {
        while self.eat(",") {
            self.word(|c| c.is_alphanumeric() || c == '_');
            self.expect("=")?;
            self.word(|c| c.is_alphanumeric() || c == '_');
        }
        self.expect(")")
    }

    fn srepr(&mut self, depth: usize) -> Result<Expr> {
        if depth > MAX_DEPTH {
            return Err(self.bad("nested too deep"));
        }
        let name = self.word(|c| c.is_alphanumeric() || c == '_' || c == '.');
        if !self.eat("(") {
            return match name {
                "true" => Ok(Expr::Int(1)),
                "false" => Ok(Expr::Int(0)),
                "oo" => Ok(Expr::float(f64::INFINITY)),
                "" => Err(self.bad("expected a name")),
                _ => Err(self.unknown(name)),
            };
        }
        match name {
            "Symbol" | "Dummy" => {
                let symbol = self.quoted()?;
                if symbol.is_empty() {
                    return Err(self.bad("a symbol without a name"));
                }
                self.close_call()?;
                Ok(Expr::symbol(&(self.rename)(symbol)))
            }
            "Integer" => {
                let value = self.integer()?;
                self.close_call()?;
                Ok(Expr::Int(value))
            }
            "Rational" => {
                let numerator = self.integer()?;
                self.expect(",")?;
                let denominator = self.integer()?;
                self.expect(")")?;
                Ok(Expr::Op(
                    ExprOp::TrueDiv,
                    vec![Expr::Int(numerator), Expr::Int(denominator)],
                ))
            }
            "Float" => {
                let value: f64 = self.quoted()?.parse().map_err(|_| self.bad("expected a number"))?;
                self.close_call()?;
                Ok(Expr::float(value))
            }
            _ => {
                let mut args = Vec::new();
                if !self.eat(")") {
                    loop {
                        args.push(self.srepr(depth + 1)?);
                        if !self.eat(",") {
                            break;
                        }
                    }
                    self.expect(")")?;
                }
                let expr = apply(name, args).ok_or_else(|| self.unknown(name))?;
                self.bounded(expr)
            }
        }
    }

    fn bounded(&self, expr: Expr) -> Result<Expr> {
        match terms(&expr, MAX_TERMS) {
            0..MAX_TERMS => Ok(expr),
            _ => Err(self.bad("too large an expression")),
        }
    }

    fn sum(&mut self, depth: usize) -> Result<Expr> {
        let mut total = self.product(depth)?;
        loop {
            total = match (self.eat("+"), self.at) {
                (true, _) => total + self.product(depth)?,
                (false, _) if self.eat("-") => total - self.product(depth)?,
                _ => return Ok(total),
            };
            total = self.bounded(total)?;
        }
    }

    fn product(&mut self, depth: usize) -> Result<Expr> {
        let mut total = self.atom(depth)?;
        loop {
            total = if self.eat("//") {
                total.floor_div(self.atom(depth)?)
            } else if self.eat("%") {
                total.modulo(self.atom(depth)?)
            } else if self.eat("**") {
                Expr::op(ExprOp::Pow, vec![total, self.atom(depth)?])
            } else if self.eat("*") {
                total * self.atom(depth)?
            } else {
                return Ok(total);
            };
            total = self.bounded(total)?;
        }
    }

    fn atom(&mut self, depth: usize) -> Result<Expr> {
        if depth > MAX_DEPTH {
            return Err(self.bad("nested too deep"));
        }
        if self.eat("(") {
            let inner = self.sum(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.skip_space();
        if self.text[self.at..].starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return self.integer().map(Expr::Int);
        }
        let name = self.word(|c| c.is_alphanumeric() || c == '_');
        if name.is_empty() {
            return Err(self.bad("expected a name or a number"));
        }
        if !self.eat("(") {
            return Ok(Expr::symbol(&(self.rename)(name)));
        }
        let mut args = vec![self.sum(depth + 1)?];
        while self.eat(",") {
            args.push(self.sum(depth + 1)?);
        }
        self.expect(")")?;
        apply(name, args)
            .ok_or_else(|| self.unknown(name))
            .and_then(|e| self.bounded(e))
    }
}

/// Nodes of the expression, counted up to `limit`.
fn terms(expr: &Expr, limit: usize) -> usize {
    match expr {
        Expr::Op(_, args) => args.iter().fold(1, |sum, arg| match sum < limit {
            true => sum + terms(arg, limit - sum),
            false => sum,
        }),
        _ => 1,
    }
}

/// sympy's and torch's functions as operators; `None` for one that is unknown or has another number of arguments.
fn apply(name: &str, args: Vec<Expr>) -> Option<Expr> {
    use ExprOp::*;
    let (op, count) = match name {
        "Add" => (Add, 1..usize::MAX),
        "Mul" => return product(args),
        "Max" => (Max, 1..usize::MAX),
        "Min" => (Min, 1..usize::MAX),
        "And" => (And, 1..usize::MAX),
        "Or" => (Or, 1..usize::MAX),
        "Not" => (Not, 1..2),
        // CleanDiv is a floor division that is known to have no rest.
        "FloorDiv" | "CleanDiv" | "RShift" | "LShift" if args.len() == 2 => {
            let power = |args: &[Expr]| Expr::op(Pow, vec![Expr::Int(2), args[1].clone()]);
            return Some(match name {
                "RShift" => args[0].clone().floor_div(power(&args)),
                "LShift" => args[0].clone() * power(&args),
                _ => Expr::op(FloorDiv, args),
            });
        }
        "CeilDiv" => (CeilDiv, 2..3),
        "Mod" | "PythonMod" | "ModularIndexing" if name != "ModularIndexing" => (Mod, 2..3),
        "ModularIndexing" if args.len() == 3 => {
            return Some(args[0].clone().floor_div(args[1].clone()).modulo(args[2].clone()));
        }
        "Pow" | "PowByNatural" | "FloatPow" => {
            // A negative power is a fraction: it has no place in sizes.
            if args.len() == 2 && matches!(args[1].as_int(), Some(i64::MIN..0)) {
                return None;
            }
            (Pow, 2..3)
        }
        "OpaqueUnaryFn_sqrt" | "sqrt" if args.len() == 1 => {
            return Some(Expr::op(Pow, vec![Expr::op(ToFloat, args), Expr::float(0.5)]));
        }
        "IntTrueDiv" | "FloatTrueDiv" | "TrueDiv" => (TrueDiv, 2..3),
        "Equality" | "Eq" => (Eq, 2..3),
        "Unequality" | "Ne" => (Ne, 2..3),
        "StrictLessThan" => (Lt, 2..3),
        "LessThan" => (Le, 2..3),
        "StrictGreaterThan" => (Gt, 2..3),
        "GreaterThan" => (Ge, 2..3),
        "Where" => (Where, 3..4),
        "ToFloat" => (ToFloat, 1..2),
        "TruncToInt" => (Trunc, 1..2),
        "FloorToInt" | "floor" => (Floor, 1..2),
        "CeilToInt" | "ceiling" => (Ceil, 1..2),
        "RoundToInt" => (Round, 1..2),
        "Identity" if args.len() == 1 => return args.into_iter().next(),
        "Abs" if args.len() == 1 => {
            let x = args.into_iter().next()?;
            return Some(x.clone().max(x * Expr::Int(-1)));
        }
        _ => return None,
    };
    count.contains(&args.len()).then(|| Expr::op(op, args))
}

/// A product; a fraction in it (`Mul(Rational(1, 2), s0)`) is an exact division, which sympy makes of a floor division without a rest.
fn product(args: Vec<Expr>) -> Option<Expr> {
    let (mut divisor, mut factors) = (1i64, Vec::new());
    for arg in args {
        match arg {
            Expr::Op(ExprOp::TrueDiv, parts) if parts.iter().all(|p| matches!(p, Expr::Int(_))) => {
                divisor = divisor.checked_mul(parts[1].as_int()?)?;
                factors.push(parts[0].clone());
            }
            other => factors.push(other),
        }
    }
    if factors.is_empty() || divisor == 0 {
        return None;
    }
    let numerator = Expr::op(ExprOp::Mul, factors);
    Some(if divisor == 1 {
        numerator
    } else {
        numerator.floor_div(Expr::Int(divisor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(name: &str) -> String {
        name.to_string()
    }

    fn s0() -> Expr {
        Expr::symbol("s0")
    }

    #[test]
    fn srepr_is_understood() {
        let cases = [
            ("Integer(-3)", Expr::Int(-3)),
            ("Symbol('s0', positive=True, integer=True)", s0()),
            ("Add(Symbol('s0', integer=True), Integer(1))", s0() + Expr::Int(1)),
            ("Mul(Integer(2), Symbol('s0', integer=True))", s0() * Expr::Int(2)),
            ("FloorDiv(Symbol('s0'), Integer(2))", s0().floor_div(Expr::Int(2))),
            ("Mul(Rational(1, 2), Symbol('s0'))", s0().floor_div(Expr::Int(2))),
            ("PythonMod(Symbol('s0'), Integer(4))", s0().modulo(Expr::Int(4))),
            ("Max(Integer(1), Symbol('s0'))", s0().max(Expr::Int(1))),
            ("Pow(Symbol('s0'), Integer(2))", s0() * s0()),
            ("Float('0.5', precision=53)", Expr::float(0.5)),
            (
                "GreaterThan(Symbol('s0'), Integer(2))",
                Expr::op(ExprOp::Ge, vec![s0(), Expr::Int(2)]),
            ),
            ("true", Expr::Int(1)),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text, &same).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn infix_is_understood() {
        let cases = [
            ("2*s0", s0() * Expr::Int(2)),
            ("s0 - 1", s0() - Expr::Int(1)),
            ("(s0 + 1)//2", (s0() + Expr::Int(1)).floor_div(Expr::Int(2))),
            ("Max(1, s0)", s0().max(Expr::Int(1))),
            ("s0**2", s0() * s0()),
        ];
        for (text, want) in cases {
            assert_eq!(parse_infix(text, &same).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn symbols_are_renamed() {
        let renamed = parse("Symbol('s0')", &|name| format!("{name}_b")).unwrap();
        assert_eq!(renamed, Expr::symbol("s0_b"));
    }

    #[test]
    fn hostile_text_is_refused() {
        let deep = format!("{}Integer(1){}", "Add(".repeat(500), ")".repeat(500));
        let power = (0..60).fold("Symbol('s')".to_string(), |e, _| format!("Pow({e}, Integer(4))"));
        let long = "1+".repeat(20_000);
        let cases = [
            "",
            "Integer(",
            "Integer(1))",
            "Symbol('a)",
            "Nothing(Integer(1))",
            "FloorDiv(Integer(1))",
            "Where()",
            "Integer(99999999999999999999)",
            "Pow(Symbol('s'), Integer(-1))",
            "Mul()",
            "Mul(Rational(1, 0), Symbol('s'))",
            "Symbol('')",
            "é(",
            deep.as_str(),
            power.as_str(),
        ];
        for text in cases {
            assert!(parse(text, &same).is_err(), "{text}");
        }
        let nested = "(".repeat(5_000);
        for text in ["", "1 +", "a b", "(1", "%", nested.as_str(), long.as_str()] {
            assert!(parse_infix(text, &same).is_err());
        }
    }
}
