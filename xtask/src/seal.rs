//! Takes the WASI imports out of a plugin: what the broker's stand-in would answer at load time
//! becomes part of the module, which then imports functions of the host and nothing else.
//!
//! Rust's standard library imports a few WASI functions whatever a plugin does. The broker answers
//! them for any module (`broker/src/plugin/preview1.wat`); the bundled ones are sealed all the
//! same, so that everybody can read in them what they can reach.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use wasm_encoder::reencode::{Error as ReencodeError, Reencode, utils};
use wasm_encoder::{CodeSection, EntityType, FunctionSection, ImportSection, Module, TypeSection};
use wasmparser::{FunctionBody, Operator, Parser, Payload, TypeRef};

use crate::Error;

/// The WASI functions, over imports of the host.
const STAND_IN: &[u8] = include_bytes!("../../broker/src/plugin/preview1.wasm");
const WASI: &str = "wasi_snapshot_preview1";

type Result<T, E = ReencodeError<NoFunction>> = std::result::Result<T, E>;

#[derive(Debug)]
struct NoFunction(u32);

impl Display for NoFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no function {}", self.0)
    }
}

impl std::error::Error for NoFunction {}

/// The sealed module. One without WASI imports is returned as it is.
pub(crate) fn seal(module: &[u8]) -> std::result::Result<Vec<u8>, Error> {
    let outline = Outline::read(module).map_err(text)?;
    let stand_in = Outline::read(STAND_IN).map_err(text)?;
    let mut sealing = Sealing::plan(&outline, &stand_in).map_err(Error)?;
    if sealing.answered.is_empty() {
        return Ok(module.to_vec());
    }
    let mut sealed = Module::new();
    sealing.parse_core_module(&mut sealed, Parser::new(0), module).map_err(text)?;
    Ok(sealed.finish())
}

fn text(error: impl Display) -> Error {
    Error(error.to_string())
}

/// What has to be known of a module before it is copied.
struct Outline<'a> {
    types: u32,
    /// Functions alone, in the order of their indices.
    imports: Vec<Import<'a>>,
    /// Types of the functions that are defined.
    defined: Vec<u32>,
    bodies: Vec<FunctionBody<'a>>,
    /// Function indices by exported name.
    exports: HashMap<&'a str, u32>,
    type_section: Option<wasmparser::TypeSectionReader<'a>>,
}

#[derive(Clone, Copy, PartialEq)]
struct Import<'a> {
    module: &'a str,
    name: &'a str,
    ty: u32,
}

impl<'a> Outline<'a> {
    fn read(module: &'a [u8]) -> wasmparser::Result<Outline<'a>> {
        let mut outline = Outline {
            types: 0,
            imports: Vec::new(),
            defined: Vec::new(),
            bodies: Vec::new(),
            exports: HashMap::new(),
            type_section: None,
        };
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => {
                    outline.types = section.count();
                    outline.type_section = Some(section);
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        if let TypeRef::Func(ty) = import.ty {
                            let (module, name) = (import.module, import.name);
                            outline.imports.push(Import { module, name, ty });
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    outline.defined = section.into_iter().collect::<wasmparser::Result<_>>()?;
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        outline.exports.insert(export.name, export.index);
                    }
                }
                Payload::CodeSectionEntry(body) => outline.bodies.push(body),
                _ => {}
            }
        }
        Ok(outline)
    }

    /// Functions that these call, of those that are defined.
    fn called_by(&self, defined: &[usize]) -> wasmparser::Result<HashSet<u32>> {
        let mut called = HashSet::new();
        for body in defined.iter().filter_map(|index| self.bodies.get(*index)) {
            for operator in body.get_operators_reader()? {
                if let Operator::Call { function_index } = operator? {
                    called.insert(function_index);
                }
            }
        }
        Ok(called)
    }
}

/// Copies the module. Functions are, in this order: imports that stay, imports that the stand-in
/// adds, those of the module, and those of the stand-in that answer its WASI imports.
struct Sealing<'a> {
    /// Where the module's functions go.
    functions: Vec<u32>,
    added: Vec<Import<'a>>,
    /// Of the stand-in, as an index among the functions that it defines.
    answered: Vec<usize>,
    /// The module's own types; those of the stand-in follow them.
    types: u32,
    stand_in: &'a Outline<'a>,
    /// Where the stand-in's imports go.
    host: HashMap<u32, u32>,
}

impl<'a> Sealing<'a> {
    fn plan(
        module: &Outline<'a>,
        stand_in: &'a Outline<'a>,
    ) -> std::result::Result<Sealing<'a>, String> {
        let mut answered = Vec::new();
        for import in module.imports.iter().filter(|import| import.module == WASI) {
            let index = stand_in.exports.get(import.name);
            let index = index.ok_or_else(|| format!("no plugin may use {WASI} {}", import.name))?;
            answered.push(*index as usize - stand_in.imports.len());
        }
        let kept: Vec<_> = module.imports.iter().filter(|import| import.module != WASI).collect();
        let position = |wanted: &Import<'_>| {
            kept.iter().position(|i| i.module == wanted.module && i.name == wanted.name)
        };
        let called = stand_in.called_by(&answered).map_err(|error| error.to_string())?;
        let mut added: Vec<Import<'a>> = Vec::new();
        let mut host = HashMap::new();
        for (index, import) in (0..).zip(&stand_in.imports) {
            if called.contains(&index) {
                let place = position(import).unwrap_or_else(|| {
                    added.push(*import);
                    kept.len() + added.len() - 1
                });
                host.insert(index, place as u32);
            }
        }
        let imports = (kept.len() + added.len()) as u32;
        let defined = module.defined.len() as u32;
        let (mut next_kept, mut next_answer) = (0, imports + defined);
        let mut functions = Vec::new();
        for import in &module.imports {
            let next = if import.module == WASI { &mut next_answer } else { &mut next_kept };
            functions.push(*next);
            *next += 1;
        }
        functions.extend(imports..imports + defined);
        Ok(Sealing { functions, added, answered, types: module.types, stand_in, host })
    }
}

impl Reencode for Sealing<'_> {
    type Error = NoFunction;

    fn function_index(&mut self, function: u32) -> Result<u32> {
        self.functions
            .get(function as usize)
            .copied()
            .ok_or(ReencodeError::UserError(NoFunction(function)))
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Result<()> {
        utils::parse_type_section(self, types, section)?;
        match self.stand_in.type_section.clone() {
            Some(section) => utils::parse_type_section(&mut self.answer(), types, section),
            None => Ok(()),
        }
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Result<()> {
        for import in section.into_imports() {
            let import = import?;
            if import.module != WASI {
                self.parse_import(imports, import)?;
            }
        }
        for import in &self.added {
            imports.import(
                import.module,
                import.name,
                EntityType::Function(self.types + import.ty),
            );
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<()> {
        utils::parse_function_section(self, functions, section)?;
        for ty in self.of_answers(&self.stand_in.defined) {
            functions.function(self.types + ty);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<()> {
        utils::parse_code_section(self, code, section)?;
        for body in self.of_answers(&self.stand_in.bodies) {
            self.answer().parse_function_body(code, body.clone())?;
        }
        Ok(())
    }
}

impl Sealing<'_> {
    /// Of what the stand-in has for each of its functions, what belongs to those that answer.
    fn of_answers<'s, T>(&'s self, all: &'s [T]) -> impl Iterator<Item = &'s T> {
        self.answered.iter().filter_map(|index| all.get(*index))
    }

    fn answer(&self) -> Answer<'_> {
        Answer { types: self.types, host: &self.host }
    }
}

/// Copies what belongs to the stand-in: its functions call imports alone.
struct Answer<'a> {
    types: u32,
    host: &'a HashMap<u32, u32>,
}

impl Reencode for Answer<'_> {
    type Error = NoFunction;

    fn function_index(&mut self, function: u32) -> Result<u32> {
        self.host.get(&function).copied().ok_or(ReencodeError::UserError(NoFunction(function)))
    }

    fn type_index(&mut self, ty: u32) -> Result<u32> {
        Ok(self.types + ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Vec<u8> {
        let path = crate::source().join("plugins-wasm/dist/fixtures/fixture-jobtap.wasm");
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_sealed_module_is_valid_and_imports_nothing_of_wasi() {
        let module = fixture();
        let before = Outline::read(&module).unwrap();
        assert!(before.imports.iter().any(|import| import.module == WASI));
        let sealed = seal(&module).unwrap();
        wasmparser::Validator::new().validate_all(&sealed).unwrap();
        let after = Outline::read(&sealed).unwrap();
        assert!(after.imports.iter().all(|import| import.module.starts_with("flux:plugin/")));
        let names = |outline: &Outline<'_>| {
            let mut names: Vec<String> = outline.exports.keys().map(|n| (*n).to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&before), names(&after));
    }

    #[test]
    fn what_a_module_says_of_itself_stays() {
        let section = |module: &[u8]| {
            let payloads = Parser::new(0).parse_all(module);
            let found = payloads.map(Result::unwrap).find_map(|payload| match payload {
                Payload::CustomSection(s) if s.name() == "flux:abi" => Some(s.data().to_vec()),
                _ => None,
            });
            found.unwrap()
        };
        let module = fixture();
        assert_eq!(section(&module), section(&seal(&module).unwrap()));
    }

    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let sealed = seal(&fixture()).unwrap();
        assert_eq!(seal(&sealed).unwrap(), sealed);
    }

    #[test]
    fn what_no_plugin_may_use_is_named() {
        let mut imports = ImportSection::new();
        let mut types = TypeSection::new();
        types.ty().function([], []);
        imports.import(WASI, "fd_dance", EntityType::Function(0));
        let mut module = Module::new();
        module.section(&types).section(&imports);
        let error = seal(&module.finish()).unwrap_err();
        assert_eq!(error.to_string(), "no plugin may use wasi_snapshot_preview1 fd_dance");
        assert!(seal(b"\\0asm").is_err());
    }
}
