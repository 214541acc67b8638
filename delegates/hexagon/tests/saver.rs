mod common;
use common::*;
use delegraph_hexagon::graph::*;
use delegraph_hexagon::sys::{Library, Qnn};
use std::sync::Arc;

#[test]
fn explore() {
    let Some(folder) = folder() else { return };
    std::fs::create_dir_all("/tmp/w5saver").unwrap();
    std::env::set_current_dir("/tmp/w5saver").unwrap();
    let library = Library::open(&folder, "libQnnSaver.so").unwrap();
    println!("{} {}", library.provider(), library.backend());
    let log = Arc::new(|level: delegraph_sdk::LogLevel, line: &str| eprintln!("{level:?}: {line}"));
    let qnn = Qnn::open(library, SOC, log).unwrap();
    let r = qnn.compile(&[&add()], &delegraph_hexagon::sys::CompileOptions { vtcm_mb: Some(4) });
    println!("{r:?}");
    let g = add();
    println!("{:?}", qnn.validate(&g, &g.nodes[0]));
    if let Ok(c) = r {
        let l = qnn.load_described(&c.binary, c.graphs);
        println!("{:?}", l.as_ref().err());
        if let Ok(l) = l {
            let mut graph = l.graph("add").unwrap();
            println!(
                "{:?}",
                graph.execute(&[&[1; 256], &[2; 256]], &mut [&mut [0; 256]], None)
            );
        }
    }
}
