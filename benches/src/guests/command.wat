;; A job that ends well. It has the memory that toolchains give a small program, writes one page of it, and nothing else.
(component
  (core module $main
    (memory (export "memory") 17)
    (data (i32.const 1048576) "a string table, a vtable, an allocator's root")
    (func (export "run") (result i32)
      (i32.store (i32.const 1048568) (i32.const 1))
      (i32.const 0))
    ;; FILLER
  )
  (core instance $main (instantiate $main))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $cli)))
