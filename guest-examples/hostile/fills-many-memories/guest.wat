;; Two memories, each below the limit, together above it.
(component
  (core module $m
    (memory $a 1)
    (memory $b 1)
    (func (export "run") (result i32)
      ;; 160 pages are 10 MiB.
      (drop (memory.grow $a (i32.const 160)))
      (if (i32.eq (memory.grow $b (i32.const 160)) (i32.const -1)) (then unreachable))
      i32.const 0)
  )
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
