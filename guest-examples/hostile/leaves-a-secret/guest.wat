;; Writes a pattern over all memory and the whole table it can get.
(component
  (core module $m
    (memory 64)
    (table 1000 funcref)
    (elem declare func $run)
    (func $run (export "run") (result i32)
      (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
      (memory.fill (i32.const 0) (i32.const 0xa5) (i32.mul (memory.size) (i32.const 65536)))
      (table.fill (i32.const 0) (ref.func $run) (i32.const 1000))
      i32.const 0)
  )
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
