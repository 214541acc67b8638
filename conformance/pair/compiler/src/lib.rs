//! Half of a delegate that comes as two libraries: the half that compiles. A conformance double of how tool chains for chips are
//! built: the work is an external program's, which reads and writes files, says how far it is, and has to be ended when nobody
//! wants its result.
//!
//! The program is `pair-tool`, beside this library, or the option `tool`. It is started in a folder of temporary files, which the
//! manifest asks for with the right to start programs.

use delegraph_sdk::image::{ImageView, NodeView};
use delegraph_sdk::{
    Compile, Compiled, Context, Delegate, Device, Error, Info, OptionValue, Options, Partition, Reason, Status,
    Verdict, Weights, ops,
};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

delegraph_sdk::export_delegate!(PairCompiler: compile);

/// The half that compiles.
pub struct PairCompiler {
    tool: PathBuf,
    delay: i64,
}

impl Delegate for PairCompiler {
    const INFO: Info = Info {
        name: "pair",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "conformance double",
        format: "delegraph.pair",
        format_version: 1,
    };

    const OPTIONS_SCHEMA: &'static str = r#"{
        "type": "object",
        "properties": {
            "tool": {"type": "string", "description": "the program that compiles"},
            "delay_ms": {"type": "integer", "minimum": 0, "description": "how long it takes at each of its steps"}
        },
        "required": ["tool"]
    }"#;

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<PairCompiler, Error> {
        options.check(&["tool", "delay_ms"])?;
        let Some(OptionValue::Str(tool)) = options.find("tool") else {
            return Err(Error::invalid("the option `tool` is missing"));
        };
        let delay = match options.find("delay_ms") {
            Some(OptionValue::Int(delay)) => delay,
            _ => 0,
        };
        Ok(PairCompiler {
            tool: tool.into(),
            delay,
        })
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

/// What both halves have.
fn verdict(node: NodeView<'_>) -> Verdict {
    let f32 = |value| node.image().value(value).dtype() == Some(delegraph_sdk::DType::F32);
    match node.op() {
        ops::ATEN_LINEAR | ops::ATEN_GELU | ops::ATEN_SOFTMAX_INT | ops::ATEN_RELU | ops::ATEN_ADD_TENSOR
            if node.inputs().all(f32) =>
        {
            Verdict::Take
        }
        ops::ATEN_LINEAR | ops::ATEN_GELU | ops::ATEN_SOFTMAX_INT | ops::ATEN_RELU | ops::ATEN_ADD_TENSOR => {
            Verdict::Refuse(Reason::DTYPE, "f32 only".into())
        }
        other => Verdict::Refuse(Reason::UNKNOWN_OP, format!("`{other}` is not among the tool's").into()),
    }
}

impl Compile for PairCompiler {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, verdict))
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        _: &Weights<'_>,
        _: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let folder = std::env::var_os("TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let (from, to) = (folder.join("graph.dgg"), folder.join("graph.bin"));
        let failed = |what: &str, error: std::io::Error| Error::internal(format!("{what}: {error}"));
        std::fs::write(&from, graph.bytes()).map_err(|e| failed("the graph cannot be written", e))?;
        let mut child = Command::new(&self.tool)
            .arg(&from)
            .arg(&to)
            .arg(self.delay.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                Error::new(
                    Status::DEPENDENCY_MISSING,
                    format!("`{}` cannot be started: {error}", self.tool.display()),
                )
                .hint("name it by the option `tool`; in a worker its folder has to be readable")
            })?;
        let outcome = watch(&mut child, context);
        if outcome.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().map_err(|e| failed("the tool", e))?;
        outcome?;
        if !status.success() {
            return Err(Error::internal(format!("the tool ended with {status}")));
        }
        let code = std::fs::read(&to).map_err(|e| failed("the tool wrote nothing", e))?;
        Ok(code.into())
    }
}

/// Passes on what the tool says, until it closes its output, the call is cancelled, or its time is up.
fn watch(child: &mut Child, context: &Context<'_>) -> Result<(), Error> {
    let (sender, lines) = channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    loop {
        match lines.recv_timeout(Duration::from_millis(5)) {
            // `2/5 layout`
            Ok(line) => {
                if let Some((step, text)) = line.split_once(' ')
                    && let Some((done, total)) = step.split_once('/')
                    && let (Ok(done), Ok(total)) = (done.parse(), total.parse())
                {
                    context.progress(done, total, text);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if context.is_cancelled() {
            return Err(Error::new(
                Status::CANCELLED,
                "the tool was ended: nobody wants its result",
            ));
        }
        if context.time_left() == Some(Duration::ZERO) {
            return Err(Error::new(Status::TIMEOUT, "the tool was ended: it took too long"));
        }
    }
}
